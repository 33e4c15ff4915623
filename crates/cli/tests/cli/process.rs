//! `pagetide explain`: a process of this computer.

use std::fs;

use super::{pagetide, text};

#[test]
fn no_page_is_announced_where_the_kernel_maps_something_of_its_own() {
    let pid = std::process::id().to_string();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    for name in ["[vvar]", "[vdso]", "[vsyscall]"] {
        let Some(line) = maps.lines().find(|line| line.ends_with(name)) else { continue };
        let output = pagetide(&["explain", &pid, line.split('-').next().unwrap()]);
        let said = text(&output.stdout);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(said.contains("the kernel's own"), "{name}: {said}");
        assert!(!said.contains("next access") && !said.contains("touches"), "{name}: {said}");
    }
}
