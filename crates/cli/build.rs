//! How the program is linked.

fn main() {
    // Where code and read-only data share a page of the file, that page may be mapped twice, by chance of
    // where the program lies; migrate_pages(2) then counts it as one that stayed, which the actor would take
    // for a page of its case. `tests/cli/program.rs` holds the program to it.
    println!("cargo::rustc-link-arg-bins=-Wl,-z,separate-code");
    println!("cargo::rerun-if-changed=build.rs");
}
