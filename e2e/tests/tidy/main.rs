//! The rules of the tree that no compiler checks: allowed imports (ARCHITECTURE.md, "Code map"),
//! file length, banned words.
//!
//! A test of `crds/` checks that its YAML is current.
#![allow(clippy::unwrap_used, missing_docs)]

mod borders;
mod code_map;
mod example;
mod imports;
mod mutations;
mod pages;
mod release;
mod source;
mod variables;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use weir_settings::{BROKER, Scope, topic_key_of};

/// A file has one subject; a longer one has two.
const LINES_MAX: usize = 500;

/// The most columns of a comment.
const COLUMNS_MAX: usize = 100;

/// Module names that name no subject.
const EMPTY_NAMES: &[&str] = &["manager", "helper", "helpers", "util", "utils", "misc", "common"];

fn root() -> PathBuf {
    weir_e2e::workspace()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The Rust files of a folder, without build output.
fn sources(folder: &str) -> Vec<PathBuf> {
    let built = root().join("target");
    let all = weir_e2e::cluster::files_outside(&root().join(folder), &built);
    all.into_iter().filter(|f| f.extension().is_some_and(|e| e == "rs")).collect()
}

fn all_sources() -> Vec<PathBuf> {
    ["broker", "cli", "crds", "e2e", "operator"].into_iter().flat_map(sources).collect()
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

/// Code without its comments.
fn code(path: &Path) -> String {
    read(path).lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The log uses only files, no network and no async runtime, so that tests can run it on a
/// simulated disk.
#[test]
fn the_log_has_no_network_and_no_runtime() {
    let mut wrong = Vec::new();
    for file in sources("broker/log") {
        let text = code(&file);
        for word in ["tokio", "async fn", ".await", "std::net", "hyper", "tonic::"] {
            if text.contains(word) {
                wrong.push(format!("{}: {word}", shown(&file)));
            }
        }
    }
    none("in broker/log", wrong);
}

#[test]
fn files_are_short() {
    let long = all_sources()
        .into_iter()
        .map(|f| (read(&f).lines().count(), f))
        .filter(|(lines, _)| *lines > LINES_MAX);
    none(
        &format!("more than {LINES_MAX} lines"),
        long.map(|(lines, f)| format!("{}: {lines}", shown(&f))).collect(),
    );
}

/// rustfmt breaks code, but leaves comments as they are. Text between fences keeps its shape.
#[test]
fn comments_are_short() {
    let mut wrong = Vec::new();
    for file in all_sources() {
        let mut fenced = false;
        for (number, line) in read(&file).lines().enumerate() {
            let comment = line.trim_start();
            fenced ^= comment.starts_with("//") && comment.contains("```");
            if comment.starts_with("//") && !fenced && line.chars().count() > COLUMNS_MAX {
                wrong.push(format!("{}:{}", shown(&file), number + 1));
            }
        }
    }
    none(&format!("comments with more than {COLUMNS_MAX} columns"), wrong);
}

#[test]
fn modules_say_what_they_are() {
    let mut wrong = Vec::new();
    for file in all_sources() {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        // A module documents its own unit tests.
        let unit_tests =
            shown(&file).contains("/src/") && file.components().any(|c| c.as_os_str() == "tests");
        if name != "tests" && !unit_tests && !read(&file).starts_with("//!") {
            wrong.push(format!("{} does not begin with //!", shown(&file)));
        }
        let words: BTreeSet<&str> = name.split('_').collect();
        if EMPTY_NAMES.iter().any(|w| words.contains(w)) {
            wrong.push(format!("{} names no subject", shown(&file)));
        }
    }
    none("modules", wrong);
}

#[test]
fn words_that_have_no_place() {
    // Built from parts, so that this file does not match itself.
    let banned = [
        ["to", "do!("],
        ["db", "g!("],
        ["unimple", "mented!("],
        ["TO", "DO"],
        ["FIX", "ME"],
        ["XX", "X"],
    ]
    .map(|w| w.concat());
    let mut wrong = Vec::new();
    for file in all_sources() {
        for (i, line) in read(&file).lines().enumerate() {
            if let Some(word) = banned.iter().find(|w| line.contains(w.as_str())) {
                wrong.push(format!("{}:{}: {word}", shown(&file), i + 1));
            }
            let rule = line.trim().trim_start_matches('/').trim();
            if line.trim().starts_with("//")
                && rule.len() > 3
                && rule.chars().all(|c| "-=*#~".contains(c))
            {
                wrong.push(format!("{}:{}: a banner", shown(&file), i + 1));
            }
        }
    }
    none("words", wrong);
}

/// An example that no test applies and no page names becomes stale.
#[test]
fn examples_are_used() {
    let examples =
        weir_e2e::cluster::files_outside(&root().join("examples"), &root().join("target"));
    let tests: String = sources("e2e/tests")
        .iter()
        .filter(|f| !shown(f).contains("/tidy/"))
        .map(|f| read(f))
        .collect();
    let folder = tests.contains("\"examples\"");
    let unused = examples.iter().filter(|f| !folder && !tests.contains(&shown(f)));
    none("examples that no test applies", unused.map(|f| shown(f)).collect());
}

/// A setting takes effect at every level where it can be set. The ones that the controller uses are
/// the same for all brokers, because the controller knows no single broker's value. The
/// documentation of an unused one says that it has no effect.
#[test]
fn each_setting_is_read_at_the_level_where_it_is_set() {
    let program = |folder: &str| -> String {
        let files = sources(folder).into_iter().filter(|f| {
            !f.components()
                .any(|c| ["tests", "tests.rs"].iter().any(|tests| c.as_os_str() == *tests))
        });
        files.map(|f| code(&f).split("mod tests {").next().unwrap().to_owned()).collect()
    };
    let (controller, brokers) = (
        program("operator/src/controller"),
        // The code that checks groups' configurations also looks up their bounds.
        program("broker/src")
            + &program("broker/log")
            + &code(&root().join("broker/settings/src/named.rs")),
    );
    let mut wrong = Vec::new();
    for key in BROKER.iter() {
        let name = key.name;
        let topic = topic_key_of(name);
        let names: Vec<String> = [Some(name), topic.map(|topic| topic.name)]
            .into_iter()
            .flatten()
            .map(|name| format!("\"{name}\""))
            .collect();
        let is_read = |program: &str| names.iter().any(|name| program.contains(name));
        if key.scope == Scope::Dynamic && is_read(&controller) {
            wrong.push(format!("{name}: the controller reads it, and one broker may have its own"));
        }
        let has_no_effect = [Some(key), topic]
            .into_iter()
            .flatten()
            .any(|key| key.documentation().contains("no effect"));
        let is_read = is_read(&controller) || is_read(&brokers) || name == "log.dir";
        if is_read == has_no_effect {
            wrong.push(format!("{name}: read: {is_read}, said to have no effect: {has_no_effect}"));
        }
    }
    none("settings", wrong);
}
