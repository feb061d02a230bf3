//! Compares the imports of all crates with ARCHITECTURE.md's code map, and forbids cycles.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::code_map::CodeMap;
use crate::imports::{self, Crate, Graph};
use crate::{none, read, root};

/// Dependencies that a crate may never have.
const FOREIGN: &[(&str, &[&str])] = &[
    ("broker/protocol", &["kube", "k8s-openapi", "tokio", "rustix", "hyper"]),
    ("broker", &["kube", "k8s-openapi", "serde_yaml"]),
    ("crds", &["tokio", "tonic"]),
];

/// The folders of the workspace's crates.
pub(crate) fn crates() -> Vec<PathBuf> {
    let manifest = read(&root().join("Cargo.toml"));
    let members = manifest
        .lines()
        .find_map(|line| line.strip_prefix("members = "))
        .expect("the workspace's members");
    members.split('"').skip(1).step_by(2).map(PathBuf::from).collect()
}

fn code_map() -> CodeMap {
    CodeMap::parse(&read(&root().join("ARCHITECTURE.md")), &crates()).unwrap_or_else(|wrong| {
        panic!("ARCHITECTURE.md's code map does not hold together:\n  {}", wrong.join("\n  "));
    })
}

/// The names of the dependencies in a manifest, including those of tests and builds.
fn dependencies(krate: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in read(&root().join(krate).join("Cargo.toml")).lines() {
        if line.starts_with('[') {
            inside = line.trim_end_matches(']').ends_with("dependencies");
        } else if inside && let Some(end) = line.find(['.', ' ', '=']) {
            names.insert(line[..end].to_owned());
        }
    }
    names
}

/// The name of the crate in a folder.
fn package(krate: &Path) -> String {
    let manifest = read(&root().join(krate).join("Cargo.toml"));
    let name = manifest.lines().find_map(|line| line.strip_prefix("name = "));
    name.expect("the name of the package").trim_matches('"').to_owned()
}

/// The import graph of the whole workspace, with relative paths.
fn whole_graph() -> Graph {
    let crates: Vec<Crate> = crates()
        .iter()
        .map(|krate| {
            let roots = ["src/lib.rs", "src/main.rs"].map(|file| root().join(krate).join(file));
            Crate {
                name: package(krate).replace('-', "_"),
                roots: roots.into_iter().filter(|file| file.is_file()).collect(),
            }
        })
        .collect();
    imports::graph(&crates).relative_to(&root())
}

#[test]
fn crates_know_only_those_below() {
    let (map, crates) = (code_map(), crates());
    let mut wrong = Vec::new();
    for krate in &crates {
        let used = dependencies(krate);
        let others = crates.iter().filter(|other| used.contains(&package(other)));
        let unknown = others.filter(|other| !map.knows_crate(krate, other));
        wrong.extend(
            unknown.map(|other| format!("{} depends on {}", krate.display(), other.display())),
        );
    }
    for (name, never) in FOREIGN {
        let used = dependencies(Path::new(name));
        wrong.extend(
            never.iter().filter(|d| used.contains(**d)).map(|d| format!("{name} depends on {d}")),
        );
    }
    none("edges that ARCHITECTURE.md's code map does not have", wrong);
}

#[test]
fn modules_know_only_those_below() {
    let map = code_map();
    let graph = whole_graph();
    let is_root = |file: &Path| file.ends_with("src/lib.rs") || file.ends_with("src/main.rs");
    let homeless = graph.files.iter().filter(|file| !is_root(file) && map.row_of(file).is_none());
    none(
        "files that are on no row of ARCHITECTURE.md's code map",
        homeless.map(|f| f.display().to_string()).collect(),
    );

    let wrong = graph.imports.iter().filter_map(|import| {
        let (from, to) = (map.row_of(&import.from)?, map.row_of(&import.to)?);
        let (from_row, to_row) = (&map.rows[from], &map.rows[to]);
        (!map.allows(from, to))
            .then(|| format!("{} may not use {}: {import}", from_row.name, to_row.name))
    });
    none("imports that ARCHITECTURE.md's code map does not allow", wrong.collect());
}

#[test]
fn no_files_import_one_another() {
    let circles = whole_graph().circles();
    none("circles of imports", circles.iter().map(ToString::to_string).collect());
}
