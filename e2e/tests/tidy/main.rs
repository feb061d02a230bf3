//! The rules of the tree that no compiler checks: who may know whom (ARCHITECTURE.md, "Code map"), how long a file may be, words that have no place.
//!
//! That the YAML of the resources is what `crdgen` writes is a test of `crds/`.
#![allow(clippy::unwrap_used, missing_docs)]

mod pages;
mod release;
mod variables;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use weir_settings::{BROKER, Scope, topic_key_of};

/// A file tells one story; one that is longer tells two.
const LINES_MAX: usize = 500;

/// Which of our crates each crate may use.
const CRATES: &[(&str, &[&str])] = &[
    ("broker/protocol", &[]),
    ("broker/settings", &[]),
    ("broker/telemetry", &[]),
    ("crds", &["weir-settings"]),
    // What the scenarios of the tests are played with knows nobody.
    ("e2e/scenario", &[]),
    ("broker", &["weir-protocol", "weir-scenario", "weir-settings", "weir-telemetry"]),
    (
        "operator",
        &["weir-crds", "weir-protocol", "weir-scenario", "weir-settings", "weir-telemetry"],
    ),
    ("cli", &["weir-broker", "weir-operator"]),
    ("e2e", &["weir-settings"]),
    // The cores of both sides, driven together.
    ("e2e/sim", &["weir-broker", "weir-crds", "weir-operator", "weir-protocol"]),
];

/// What a crate may never use, at whatever distance it would be convenient.
const FOREIGN: &[(&str, &[&str])] = &[
    ("broker/protocol", &["kube", "k8s-openapi", "tokio", "rustix", "hyper"]),
    ("broker", &["kube", "k8s-openapi", "serde_yaml"]),
    ("crds", &["tokio", "tonic"]),
];

/// Which modules of the broker each of them may use. `broker` holds the parts for the APIs; `run` and `lib` wire everything.
const MODULES: &[(&str, &[&str])] = &[
    ("log", &[]),
    ("metadata", &[]),
    ("auth", &[]),
    ("memory", &[]),
    ("config", &["memory"]),
    ("metrics", &["replica"]),
    ("replica", &["log", "metadata", "broker"]),
    // Of net only the reply that it hands over.
    ("coordinator", &["broker", "log", "metadata", "replica"]),
    ("group", &["coordinator", "metadata"]),
    ("transaction", &["coordinator", "metadata"]),
    (
        "transaction_io",
        &["broker", "coordinator", "group", "log", "metadata", "replica", "transaction"],
    ),
    ("cores", &["coordinator", "group", "log", "metadata", "transaction"]),
    (
        "api",
        &[
            "auth",
            "broker",
            "config",
            "coordinator",
            "group",
            "log",
            "metadata",
            "metrics",
            "net",
            "replica",
            "transaction",
            "transaction_io",
        ],
    ),
    ("net", &["api", "auth", "broker", "config", "log", "metrics"]),
    ("controller_client", &["api", "broker", "config", "log", "metadata", "metrics", "replica"]),
];

/// What the operator's parts may use: the core is pure, and the store knows nobody but it.
const OPERATOR: &[(&str, &[&str])] = &[
    ("controller", &[]),
    ("store", &["controller", "verdict"]),
    ("shell", &["controller", "probe", "store", "time"]),
    ("schema", &[]),
    ("kafka", &["controller"]),
    ("groups", &["conditions", "kafka", "time"]),
];

/// Words that would say that a module has no subject.
const EMPTY_NAMES: &[&str] = &["manager", "helper", "helpers", "util", "utils", "misc", "common"];

fn root() -> PathBuf {
    weir_e2e::workspace()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The Rust files of a folder, but for what the build made.
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
    read(path)
        .lines()
        .filter(|l| !l.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The names of the dependencies in a manifest, tests' and builds' too.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.trim_end_matches(']').ends_with("dependencies");
        } else if inside && let Some(end) = line.find(['.', ' ', '=']) {
            names.insert(line[..end].to_owned());
        }
    }
    names
}

#[test]
fn crates_know_only_those_below() {
    let mut wrong = Vec::new();
    for (name, may) in CRATES {
        let used = dependencies(&read(&root().join(name).join("Cargo.toml")));
        let ours = used.iter().filter(|d| d.starts_with("weir"));
        wrong.extend(ours.filter(|d| !may.contains(&d.as_str())).map(|d| format!("{name} uses {d}")));
    }
    for (name, never) in FOREIGN {
        let used = dependencies(&read(&root().join(name).join("Cargo.toml")));
        wrong.extend(never.iter().filter(|d| used.contains(**d)).map(|d| format!("{name} uses {d}")));
    }
    none("edges that ARCHITECTURE.md's code map does not have", wrong);
}

/// The modules that the files of a module name, `crate::x` by `crate::x`.
fn modules_used(krate: &str, module: &str) -> BTreeSet<(String, String)> {
    let own = [root().join(krate).join(format!("src/{module}.rs"))];
    let inner = sources(&format!("{krate}/src/{module}"));
    let mut used = BTreeSet::new();
    for file in own.iter().filter(|f| f.is_file()).chain(&inner) {
        let of_tests = file.components().any(|part| part.as_os_str() == "tests");
        if of_tests || file.ends_with("tests.rs") || file.ends_with("fixtures.rs") {
            continue;
        }
        let text = code(file);
        // Unit tests below the code may reach wherever they like.
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for part in text.split("crate::").skip(1) {
            let name: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            used.insert((shown(file), name));
        }
    }
    used
}

fn check_modules(krate: &str, table: &[(&str, &[&str])]) {
    let mut wrong = Vec::new();
    let all: BTreeSet<String> = std::fs::read_dir(root().join(krate).join("src"))
        .unwrap()
        .map(|e| e.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    for (module, may) in table {
        for (file, used) in modules_used(krate, module) {
            // An empty name is `crate::{...}`, which hides the edges.
            if used.is_empty() || (all.contains(&used) && used != *module && !may.contains(&used.as_str())) {
                wrong.push(format!("{file} uses crate::{used}"));
            }
        }
    }
    none("edges that ARCHITECTURE.md's code map does not have", wrong);
}

#[test]
fn modules_know_only_those_below() {
    check_modules("broker", MODULES);
    check_modules("operator", OPERATOR);
}

/// The log is files and bytes: it can be tested under a simulated disk because it waits for nothing else.
#[test]
fn the_log_has_no_network_and_no_runtime() {
    let mut wrong = Vec::new();
    for file in sources("broker/src/log") {
        let text = code(&file);
        for word in ["tokio", "async fn", ".await", "std::net", "hyper", "tonic::"] {
            if text.contains(word) {
                wrong.push(format!("{}: {word}", shown(&file)));
            }
        }
    }
    none("in broker/src/log", wrong);
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

#[test]
fn modules_say_what_they_are() {
    let mut wrong = Vec::new();
    for file in all_sources() {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        // The unit tests of a module are explained by it.
        let unit_tests = shown(&file).contains("/src/") && file.components().any(|c| c.as_os_str() == "tests");
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
    // Put together here, so that this file does not find itself.
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
            if line.trim().starts_with("//") && rule.len() > 3 && rule.chars().all(|c| "-=*#~".contains(c)) {
                wrong.push(format!("{}:{}: a banner", shown(&file), i + 1));
            }
        }
    }
    none("words", wrong);
}

/// An example that no test applies and no page names goes stale.
#[test]
fn examples_are_used() {
    let examples = weir_e2e::cluster::files_outside(&root().join("examples"), &root().join("target"));
    let tests: String = sources("e2e/tests")
        .iter()
        .filter(|f| !shown(f).contains("/tidy/"))
        .map(|f| read(f))
        .collect();
    let folder = tests.contains("\"examples\"");
    let unused = examples.iter().filter(|f| !folder && !tests.contains(&shown(f)));
    none("examples that no test applies", unused.map(|f| shown(f)).collect());
}

/// Whoever may set something at a level is honoured there: what the controller goes by is the same for all brokers, since the controller knows no broker's own;
/// and what nobody reads says that it has no effect.
#[test]
fn each_setting_is_read_at_the_level_where_it_is_set() {
    let program = |folder: &str| -> String {
        let files = sources(folder)
            .into_iter()
            .filter(|f| !f.components().any(|c| ["tests", "tests.rs"].iter().any(|tests| c.as_os_str() == *tests)));
        files.map(|f| code(&f).split("mod tests {").next().unwrap().to_owned()).collect()
    };
    let (controller, brokers) = (
        program("operator/src/controller"),
        // The bounds of groups' settings are looked up where those are checked.
        program("broker/src") + &code(&root().join("broker/settings/src/named.rs")),
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
