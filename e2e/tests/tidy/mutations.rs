//! The mutations of `e2e/mutations` are patches of code that changes: each one has to apply.

use std::process::Command;

use crate::{none, root, shown};

#[test]
fn each_mutation_applies() {
    let folder = root().join("e2e/mutations");
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let patches: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|it| it == "patch")).collect();
    assert!(patches.len() >= 7, "{patches:?}");
    let refused = patches.iter().filter_map(|patch| {
        let mut git = Command::new("git");
        let checked = git.current_dir(root()).args(["apply", "--check"]).arg(patch).output();
        let checked = checked.unwrap();
        let why = String::from_utf8_lossy(&checked.stderr).into_owned();
        (!checked.status.success()).then(|| format!("{}: {why}", shown(patch)))
    });
    none("mutations that do not apply", refused.collect());
}
