//! The graph of imports between files, within a crate and across crates.
//!
//! A re-exported name (`pub use`) resolves to the file that defines it, so a facade adds no edge.
//! `mod x;`, a module's re-exports of its own children, and test code are no edges.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use petgraph::algo::tarjan_scc;
use petgraph::graphmap::DiGraphMap;

use crate::source::{self, Declared, Named};

/// The longest chain of re-exports that resolution follows.
const HANDED_ON_MAX: usize = 16;

/// A crate: its import name and its root files (`lib.rs`, `main.rs`).
#[derive(Debug)]
pub(crate) struct Crate {
    pub(crate) name: String,
    pub(crate) roots: Vec<PathBuf>,
}

/// A line of `from` that names an item of `to`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Import {
    pub(crate) from: PathBuf,
    pub(crate) line: usize,
    pub(crate) to: PathBuf,
    /// The path as written.
    pub(crate) path: String,
}

impl fmt::Display for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Import { from, to, line, path } = self;
        write!(f, "{}:{line} names {path}, which {} defines", from.display(), to.display())
    }
}

/// All imports between files; the paths have the form in which they were given.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    pub(crate) files: BTreeSet<PathBuf>,
    pub(crate) imports: BTreeSet<Import>,
}

/// Files that import each other.
#[derive(Debug)]
pub(crate) struct Circle {
    pub(crate) files: BTreeSet<PathBuf>,
    /// A shortest cycle, import by import.
    pub(crate) round: Vec<Import>,
}

impl fmt::Display for Circle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files: Vec<String> = self.files.iter().map(|file| file.display().to_string()).collect();
        write!(f, "{} files import one another: {}", files.len(), files.join(", "))?;
        self.round.iter().try_for_each(|import| write!(f, "\n    {import}"))
    }
}

impl Graph {
    /// The same graph, with paths relative to a folder.
    pub(crate) fn relative_to(self, folder: &Path) -> Graph {
        let relative =
            |path: PathBuf| path.strip_prefix(folder).map(Path::to_owned).unwrap_or(path);
        let imports = self.imports.into_iter();
        Graph {
            files: self.files.into_iter().map(relative).collect(),
            imports: imports
                .map(|i| Import { from: relative(i.from), to: relative(i.to), ..i })
                .collect(),
        }
    }

    pub(crate) fn circles(&self) -> Vec<Circle> {
        let files: Vec<&PathBuf> = self.files.iter().collect();
        let number: HashMap<&PathBuf, usize> =
            files.iter().enumerate().map(|(n, file)| (*file, n)).collect();
        let edges = self.imports.iter().map(|import| (number[&import.from], number[&import.to]));
        let components = tarjan_scc(&DiGraphMap::<usize, ()>::from_edges(edges));
        let circles = components.into_iter().filter(|component| component.len() > 1);
        let mut circles: Vec<Circle> = circles
            .map(|component| {
                let files: BTreeSet<PathBuf> =
                    component.into_iter().map(|n| files[n].clone()).collect();
                Circle { round: self.shortest_round(&files), files }
            })
            .collect();
        circles.sort_by(|a, b| a.files.cmp(&b.files));
        circles
    }

    fn shortest_round(&self, files: &BTreeSet<PathBuf>) -> Vec<Import> {
        let inside = |file: PathBuf| {
            self.imports
                .iter()
                .filter(move |i| i.from == file)
                .filter(move |i| files.contains(&i.to))
        };
        let round = |start: &PathBuf| {
            let mut reached: BTreeMap<&PathBuf, &Import> = BTreeMap::new();
            let mut next = vec![start.clone()];
            while !reached.contains_key(start) && !next.is_empty() {
                let mut further = Vec::new();
                for import in next.into_iter().flat_map(inside) {
                    if !reached.contains_key(&import.to) {
                        reached.insert(&import.to, import);
                        further.push(import.to.clone());
                    }
                }
                next = further;
            }
            let mut imports = Vec::new();
            let mut file = start;
            while let Some(import) = reached.get(file) {
                imports.push((*import).clone());
                file = &import.from;
                if file == start {
                    break;
                }
            }
            imports.reverse();
            imports
        };
        files.iter().map(round).min_by_key(Vec::len).unwrap_or_default()
    }
}

/// Reads the crates and resolves each name to the file that defines it. Panics on a file that
/// cannot be read.
pub(crate) fn graph(crates: &[Crate]) -> Graph {
    let mut tree = Tree::default();
    for krate in crates {
        for root in &krate.roots {
            let folder = root.parent().unwrap_or(Path::new(""));
            let id = tree.add_file(root, folder, None);
            // Other crates cannot import from a binary.
            tree.crates.entry(krate.name.clone()).or_insert(id);
        }
    }
    tree.graph()
}

type Id = usize;

#[derive(Debug, Default)]
struct Module {
    file: PathBuf,
    root: Id,
    parent: Option<Id>,
    children: HashMap<String, Id>,
    declared: Declared,
}

/// The target of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Module(Id),
    /// An item that this module defines.
    Item(Id),
}

#[derive(Debug, Default)]
struct Tree {
    modules: Vec<Module>,
    crates: HashMap<String, Id>,
}

impl Tree {
    /// `folder` holds the child modules of the file.
    fn add_file(&mut self, file: &Path, folder: &Path, parent: Option<Id>) -> Id {
        let text = std::fs::read_to_string(file)
            .unwrap_or_else(|e| panic!("cannot read {}: {e}", file.display()));
        let declared =
            source::read(&text).unwrap_or_else(|e| panic!("cannot parse {}: {e}", file.display()));
        self.add(file, folder, parent, declared)
    }

    fn add(
        &mut self,
        file: &Path,
        folder: &Path,
        parent: Option<Id>,
        mut declared: Declared,
    ) -> Id {
        let id = self.modules.len();
        let root = parent.map_or(id, |parent| self.modules[parent].root);
        let (files, inline) =
            (std::mem::take(&mut declared.files), std::mem::take(&mut declared.inline));
        self.modules.push(Module {
            file: file.to_owned(),
            root,
            parent,
            declared,
            ..Module::default()
        });
        for (name, path) in files {
            let beside = match path {
                Some(path) => file.with_file_name(path),
                None => folder.join(format!("{name}.rs")),
            };
            let inside = folder.join(&name).join("mod.rs");
            let child = if beside.is_file() { beside } else { inside };
            let child = self.add_file(&child, &folder.join(&name), Some(id));
            self.modules[id].children.insert(name, child);
        }
        for (name, declared) in inline {
            let child = self.add(file, &folder.join(&name), Some(id), declared);
            self.modules[id].children.insert(name, child);
        }
        id
    }

    fn graph(&self) -> Graph {
        let mut graph = Graph::default();
        for (id, module) in self.modules.iter().enumerate() {
            graph.files.insert(module.file.clone());
            for used in &module.declared.uses {
                let target = self.resolve(id, &used.path.segments, 0);
                let defined_in = match target {
                    Some(Target::Item(at)) => at,
                    Some(Target::Module(at)) if used.alias.is_none() => at,
                    // A name inside a module has an edge of its own.
                    _ => continue,
                };
                if !(used.handed_on && self.is_inside(defined_in, id)) {
                    self.add_import(&mut graph, id, defined_in, &used.path);
                }
            }
            for path in &module.declared.paths {
                let imported = self.is_imported(id, path);
                if let Some(Target::Item(defined_in)) =
                    self.resolve(id, &path.segments, 0).filter(|_| !imported)
                {
                    self.add_import(&mut graph, id, defined_in, path);
                }
            }
        }
        graph
    }

    /// Whether a path begins with an item that the module imports with `use`. Then that line is the
    /// edge.
    fn is_imported(&self, module: Id, path: &Named) -> bool {
        let uses = self.modules[module].declared.uses.iter().filter(|used| !used.handed_on);
        let mut names = uses.filter(|used| used.alias.as_ref() == path.segments.first());
        names.any(|used| {
            matches!(self.resolve(module, &used.path.segments, 0), Some(Target::Item(_)))
        })
    }

    fn add_import(&self, graph: &mut Graph, from: Id, to: Id, path: &Named) {
        let (from, to) = (self.modules[from].file.clone(), self.modules[to].file.clone());
        if from != to {
            graph.imports.insert(Import {
                from,
                to,
                line: path.line,
                path: path.segments.join("::"),
            });
        }
    }

    fn is_inside(&self, module: Id, ancestor: Id) -> bool {
        let mut at = Some(module);
        while let Some(id) = at {
            if id == ancestor {
                return true;
            }
            at = self.modules[id].parent;
        }
        false
    }

    /// Resolves a path in module `from`; `None` if it leaves our crates.
    fn resolve(&self, from: Id, segments: &[String], handed_on: usize) -> Option<Target> {
        let (first, rest) = segments.split_first()?;
        let start = match first.as_str() {
            "crate" => Some(Target::Module(self.modules[from].root)),
            "self" => Some(Target::Module(from)),
            "super" => self.modules[from].parent.map(Target::Module),
            name => {
                let found = self.look_up(from, name, rest.is_empty(), handed_on);
                found.or_else(|| self.crates.get(name).map(|root| Target::Module(*root)))
            }
        };
        let mut target = start?;
        for (at, name) in rest.iter().enumerate() {
            let Target::Module(module) = target else { break };
            let is_last = at + 1 == rest.len();
            target = if name == "super" {
                Target::Module(self.modules[module].parent?)
            } else {
                // Names from a build script or a macro count as the module's own.
                self.look_up(module, name, is_last, handed_on).unwrap_or(Target::Item(module))
            };
        }
        Some(target)
    }

    /// Resolves a name in a module. A module and an item may share a name: at the end of a path the
    /// item counts.
    fn look_up(&self, module: Id, name: &str, is_last: bool, handed_on: usize) -> Option<Target> {
        if handed_on > HANDED_ON_MAX {
            return None;
        }
        let Module { children, declared, .. } = &self.modules[module];
        let child = || children.get(name).map(|child| Target::Module(*child));
        let item =
            || declared.items.iter().any(|item| item == name).then_some(Target::Item(module));
        let own = if is_last { item().or_else(child) } else { child().or_else(item) };
        let imported = || {
            let mut uses = declared.uses.iter().filter(|used| used.alias.as_deref() == Some(name));
            uses.find_map(|used| {
                // `use x::x` does not refer to itself.
                let meant = self.resolve(module, &used.path.segments, handed_on + 1);
                meant.filter(|_| used.path.segments != [name])
            })
        };
        let from_all = || {
            let mut all = declared.uses.iter().filter(|used| used.alias.is_none());
            all.find_map(|used| match self.resolve(module, &used.path.segments, handed_on + 1)? {
                Target::Module(other) if other != module => {
                    self.look_up(other, name, is_last, handed_on + 1)
                }
                _ => None,
            })
        };
        own.or_else(imported).or_else(from_all)
    }
}
