//! Tests the graph and the code map on a small crate with one violation of each kind.

use std::path::{Path, PathBuf};

use crate::code_map::CodeMap;
use crate::imports::{self, Crate, Graph};

/// `api` is above `log`. `log` is a facade of two files, of which one imports the other. `api` and
/// another file import each other.
const FILES: &[(&str, &str)] = &[
    ("lib.rs", "mod api;\npub mod log;\nmod words;\npub use api::serve;\n"),
    (
        "log/mod.rs",
        "mod reader;\nmod segment;\npub use reader::{Reader as LogReader, read};\npub(crate) use segment::*;\n",
    ),
    (
        "log/reader.rs",
        "use super::segment::Segment;\npub struct Reader(Segment);\npub fn read() {}\n",
    ),
    (
        "log/segment.rs",
        "pub struct Segment;\n#[cfg(test)]\nmod tests {\n    use crate::api::serve;\n}\n",
    ),
    (
        "api.rs",
        "mod fetch;\nuse crate::log;\npub struct Context;\npub fn serve() {\n    fetch::fetch();\n    log::read();\n}\n",
    ),
    (
        "api/fetch.rs",
        "use super::Context;\npub fn fetch() {\n    println!(\"{:?}\", crate::log::Segment);\n    words_of::<std::string::String>();\n}\n\
         #[cfg(any(test, fuzzing))]\nfn words_of<T>() { crate::words::WORDS; }\n",
    ),
    (
        "words.rs",
        "pub const WORDS: &str = \"\";\nfn up() -> Option<crate::log::LogReader> {\n    None\n}\n",
    ),
];

const CODE_MAP: &str = "\
| where | what | may use |
|---|---|---|
| `small/src/words.rs` | | |
| `small/src/log/` | | words |
| `small/src/api.rs` | with its folder | log (but no words), `words` |
";

fn graph() -> Graph {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in FILES {
        let file = folder.path().join("small/src").join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    let roots = vec![folder.path().join("small/src/lib.rs")];
    imports::graph(&[Crate { name: "small".into(), roots }]).relative_to(folder.path())
}

fn code_map(page: &str) -> Result<CodeMap, Vec<String>> {
    CodeMap::parse(page, &[PathBuf::from("small")])
}

#[test]
fn imports_lead_through_facades_to_the_file_that_defines_the_name() {
    let imports: Vec<String> = graph().imports.iter().map(ToString::to_string).collect();
    assert_eq!(
        imports,
        [
            "small/src/api/fetch.rs:1 names super::Context, which small/src/api.rs defines",
            "small/src/api/fetch.rs:3 names crate::log::Segment, which small/src/log/segment.rs defines",
            "small/src/api.rs:5 names fetch::fetch, which small/src/api/fetch.rs defines",
            "small/src/api.rs:6 names log::read, which small/src/log/reader.rs defines",
            "small/src/log/reader.rs:1 names super::segment::Segment, which small/src/log/segment.rs defines",
            "small/src/words.rs:2 names crate::log::LogReader, which small/src/log/reader.rs defines",
        ]
    );
}

#[test]
fn a_circle_is_shown_with_the_imports_that_close_it() {
    let circles: Vec<String> = graph().circles().iter().map(ToString::to_string).collect();
    assert_eq!(
        circles,
        ["2 files import one another: small/src/api/fetch.rs, small/src/api.rs\n    \
          small/src/api/fetch.rs:1 names super::Context, which small/src/api.rs defines\n    \
          small/src/api.rs:5 names fetch::fetch, which small/src/api/fetch.rs defines"]
    );
}

#[test]
fn an_upward_import_is_on_no_row_that_may_use_it() {
    let map = code_map(CODE_MAP).unwrap();
    let row = |file: &str| map.row_of(Path::new(file));
    assert_eq!(row("small/src/lib.rs"), None);
    assert_eq!(row("small/src/api/fetch.rs"), row("small/src/api.rs"));
    let graph = graph();
    let upward = graph.imports.iter().filter(|import| {
        let (from, to) = (map.row_of(&import.from).unwrap(), map.row_of(&import.to).unwrap());
        !map.allows(from, to)
    });
    let upward: Vec<&Path> = upward.map(|import| import.from.as_path()).collect();
    assert_eq!(upward, [Path::new("small/src/words.rs")]);
}

#[test]
fn a_row_names_rows_above_it_only() {
    let page = CODE_MAP.replace("| `small/src/words.rs` | | |", "| `small/src/words.rs` | | log |");
    assert_eq!(code_map(&page).unwrap_err(), ["small/words may use log, which no row above it is"]);
}
