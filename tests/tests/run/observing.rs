//! `pagetide stat` on a machine that is a model.

use super::{pagetide, run, subject, text};

/// What the shell says that runs this on two sockets; `$P` is pagetide, `$A` the subject.
fn shell(script: &str) -> std::process::Output {
    let script = format!("P={} A={}; {script}", pagetide().display(), subject());
    run(&["--machine", "two-socket", "--", "sh", "-c", &script])
}

#[test]
fn stat_shows_the_machine_and_its_migrations_in_its_own_columns() {
    let output = shell("$P stat; $A 'map a 200; write a 0 200; move a 1' >&2; $P stat");
    let said = text(&output.stdout);
    let lines: Vec<Vec<&str>> =
        said.lines().map(|line| line.split_whitespace().collect()).collect();
    let column = |name: &str| lines[0].iter().position(|word| *word == name).unwrap();
    let firsts: Vec<&str> = lines.iter().map(|line| line[0]).collect();
    assert_eq!(firsts, ["node", "all", "0", "1", "node", "all", "0", "1"], "{output:?}");
    let migrated = lines.iter().skip(1).step_by(4).map(|line| line[column("migrated")]);
    assert_eq!(migrated.collect::<Vec<_>>(), ["0", "200"], "{said}");
    assert_eq!([lines[3][column("hit")], lines[7][column("hit")]], ["0", "200"], "{said}");
}
