//! The table of environment variables in CONTRIBUTING.md has exactly the variables of programs,
//! tests and scripts.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{all_sources, none, read, root};

/// All names with our prefix.
fn variables(text: &str) -> BTreeSet<String> {
    let prefix = ["WEIR", "_"].concat();
    let in_word = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices(&prefix) {
        let name: String = text[at..].chars().take_while(|c| in_word(*c)).collect();
        // The prefix alone refers to all variables, and a match inside a longer word is not ours.
        if name.len() > prefix.len() && !text[..at].ends_with(in_word) {
            found.insert(name);
        }
    }
    found
}

/// The files that may read a variable: programs and tests, the scripts of e2e, and the chart.
fn readers() -> Vec<PathBuf> {
    let folder =
        |name: &str| weir_e2e::cluster::files_outside(&root().join(name), &root().join("target"));
    let is_text =
        |f: &PathBuf| std::fs::read(f).is_ok_and(|bytes| std::str::from_utf8(&bytes).is_ok());
    let others = ["e2e", "charts", "examples"].into_iter().flat_map(folder).filter(is_text);
    all_sources().into_iter().chain(others).collect()
}

#[test]
fn every_variable_is_in_the_table() {
    let page = read(&root().join("CONTRIBUTING.md"));
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let told: BTreeSet<String> =
        rows.flat_map(|row| variables(row.split(" | ").next().unwrap())).collect();
    let read: BTreeSet<String> = readers().iter().flat_map(|file| variables(&read(file))).collect();
    assert!(read.len() > 30, "where are the variables? {read:?}");
    none(
        "variables that CONTRIBUTING.md does not explain",
        read.difference(&told).cloned().collect(),
    );
    none(
        "variables of CONTRIBUTING.md that nothing reads",
        told.difference(&read).cloned().collect(),
    );
}

#[test]
fn names_are_told_from_what_surrounds_them() {
    let prefix = ["WEIR", "_"].concat();
    let text = format!("${{{prefix}KIND:-x}} {prefix}* 'MY_{prefix}NAME' {prefix}E2E_SEED=7");
    assert_eq!(variables(&text), [format!("{prefix}KIND"), format!("{prefix}E2E_SEED")].into());
}
