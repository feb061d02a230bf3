//! Scenario files: text files of events and their outcomes. The tests of the pure cores play them;
//! this crate knows none of the cores.
//!
//! A file has comments (`# ...`), blank lines, and events (`> verb word key=value flag`). The
//! indented lines below an event are its outcomes. With `WEIR_ACCEPT=1` the run writes the current
//! outcomes into the files, and the author reviews the diff. Every error panics, because only tests
//! use this crate.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod words;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

pub use self::words::EventArgs;

/// Plays every file of a folder, each in a new world, and compares the outcomes of its events with
/// the file.
///
/// # Panics
/// When an outcome differs, a file is malformed, or the folder has no file.
pub fn play_folder<W>(
    folder: impl AsRef<Path>,
    begin: impl Fn() -> W,
    play: impl Fn(&mut W, &mut EventArgs<'_>) -> Vec<String>,
) {
    let accepts = std::env::var_os("WEIR_ACCEPT").is_some();
    let files = files(folder.as_ref());
    assert!(!files.is_empty(), "there is no scenario in {}", folder.as_ref().display());
    let mut differences = Vec::new();
    for file in files {
        let name = file.display().to_string();
        let expected =
            std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{name}: {error}"));
        let actual = played(&name, &expected, &mut begin(), &play);
        if accepts {
            std::fs::write(&file, &actual).unwrap_or_else(|error| panic!("{name}: {error}"));
        } else if let Some(difference) = difference(&name, &expected, &actual) {
            differences.push(difference);
        }
    }
    assert!(
        differences.is_empty(),
        "something else came of it than the scenarios say (WEIR_ACCEPT=1 writes what comes of it now):\n{}",
        differences.join("\n")
    );
}

/// Plays one event, without its `> `.
///
/// When a word of the event stays unused, or one is missing.
pub fn play_event<R>(event: &str, play: impl FnOnce(&mut EventArgs<'_>) -> R) -> R {
    let mut words = EventArgs::new(event);
    let outcome = play(&mut words);
    words.finish();
    outcome
}

/// The files of a folder, by name.
fn files(folder: &Path) -> Vec<PathBuf> {
    let shown = folder.display();
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{shown}: {error}"));
    let path = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.unwrap_or_else(|error| panic!("{shown}: {error}")).path()
    };
    let mut files: Vec<PathBuf> = entries.map(path).collect();
    files.sort();
    files
}

/// The scenario with the current outcomes.
fn played<W>(
    name: &str,
    scenario: &str,
    world: &mut W,
    play: &impl Fn(&mut W, &mut EventArgs<'_>) -> Vec<String>,
) -> String {
    let mut text = String::new();
    let mut add = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    let mut events = 0;
    for (line, number) in scenario.lines().zip(1..) {
        if let Some(event) = line.strip_prefix("> ") {
            events += 1;
            add(line);
            // A player may panic anywhere; this adds the place in the file.
            let outcomes =
                catch_unwind(AssertUnwindSafe(|| play_event(event, |words| play(world, words))));
            let outcomes = outcomes
                .unwrap_or_else(|cause| panic!("{name}:{number}: {line}\n  {}", said(&*cause)));
            outcomes.iter().for_each(|outcome| add(&format!("  {outcome}")));
        } else if line.trim().is_empty() || line.starts_with('#') {
            add(line);
        } else {
            assert!(
                line.starts_with("  "),
                "{name}:{number}: {line:?} is neither a comment, nor an event, nor what came of one"
            );
        }
    }
    assert!(events > 0, "{name}: nothing happens in it");
    text
}

/// The message of a panic.
fn said(cause: &(dyn Any + Send)) -> &str {
    let text = cause.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| cause.downcast_ref::<&str>().copied()).unwrap_or("it panicked")
}

/// The first line in which two texts differ, with its event.
fn difference(name: &str, expected: &str, actual: &str) -> Option<String> {
    let (mut expected, mut actual) = (expected.lines(), actual.lines());
    let mut event = "";
    for number in 1.. {
        let (said, came) = (expected.next(), actual.next());
        if said != came {
            let quoted = |line: Option<&str>| {
                line.map_or_else(|| "the end".to_owned(), |line| format!("{line:?}"))
            };
            return Some(format!(
                "{name}:{number}: after {event:?}\n  expected {}\n  but came {}",
                quoted(said),
                quoted(came)
            ));
        }
        event = said?.strip_prefix("> ").unwrap_or(event);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A counter as the world; `add N times=M loud`.
    fn count(world: &mut i32, words: &mut EventArgs<'_>) -> Vec<String> {
        match words.next() {
            "add" => *world += words.next_number::<i32>() * words.number("times").unwrap_or(1),
            "nothing" => return Vec::new(),
            verb => words.fail(&format!("there is no event {verb:?}")),
        }
        vec![if words.flag("loud") { format!("{world}!") } else { world.to_string() }]
    }

    fn play(scenario: &str) -> String {
        played("x.txt", scenario, &mut 0, &count)
    }

    #[test]
    fn outcomes_are_made_anew_and_the_rest_stays() {
        let expected = "# Counts.\n> add 1\n  1\n\n> add 2 times=3 loud\n  7!\n> nothing\n";
        assert_eq!(play(expected), expected);
        assert_eq!(
            play("# Counts.\n> add 1\n  5\n  6\n\n> add 2 times=3 loud\n> nothing\n  8\n"),
            expected
        );
        assert_eq!(difference("x.txt", expected, expected), None);
        assert_eq!(
            difference("x.txt", &expected.replace("  7!", "  8!"), expected).unwrap(),
            "x.txt:6: after \"add 2 times=3 loud\"\n  expected \"  8!\"\n  but came \"  7!\""
        );
        assert!(
            difference("x.txt", "> add 1\n", "> add 1\n  1\n")
                .unwrap()
                .contains("expected the end")
        );
    }

    #[test]
    fn what_nobody_understands_is_named_with_its_place() {
        for (scenario, place, why) in [
            ("# Counts.\n> ad 1\n", "x.txt:2: > ad 1", "there is no event \"ad\""),
            ("> add\n", "x.txt:1: > add", "a word is missing"),
            ("> add times=2\n", "x.txt:1: > add times=2", "a word is missing"),
            ("> add one\n", "x.txt:1: > add one", "\"one\" is no number"),
            ("> add 1 times=x\n", "x.txt:1: ", "\"x\" is no number"),
            ("> add 1 tmes=2\n", "x.txt:1: ", "nobody asked for \"tmes=2\""),
            ("> add 1 times=2 times=3\n", "x.txt:1: ", "\"times\" is said twice"),
            ("> add 1 laud\n", "x.txt:1: ", "nobody asked for \"laud\""),
            ("\n>add 1\n", "x.txt:2: ", "is neither a comment, nor an event"),
            ("# Counts.\n", "x.txt: ", "nothing happens in it"),
        ] {
            let cause = catch_unwind(|| play(scenario)).unwrap_err();
            let message = said(&*cause);
            assert!(message.starts_with(place) && message.contains(why), "{scenario:?}: {message}");
        }
    }

    #[test]
    fn a_folder_without_files_or_with_another_outcome_fails() {
        let folder = tempfile::tempdir().unwrap();
        let run = || catch_unwind(|| play_folder(folder.path(), || 0, count));
        assert!(said(&*run().unwrap_err()).contains("there is no scenario"));
        std::fs::write(folder.path().join("good.txt"), "> add 1\n  1\n").unwrap();
        run().unwrap();
        std::fs::write(folder.path().join("wrong.txt"), "> add 1\n  2\n").unwrap();
        let cause = run().unwrap_err();
        assert!(
            said(&*cause).contains("wrong.txt:2: after \"add 1\"\n  expected \"  2\""),
            "{}",
            said(&*cause)
        );
    }
}
