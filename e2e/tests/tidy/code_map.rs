//! Parses ARCHITECTURE.md's code map: the parts, and the parts that each may use.
//!
//! A row is a crate or a module, by its path. Its third column names rows above it. It names a
//! module of the same crate by its path in `src` (`replica/core`), another crate by its folder
//! (`protocol`), and a module of another crate by both (`broker/sim_api`). `all above` means every
//! module of the same crate above the row. Text in brackets is for the reader, and so are rows
//! without our Rust code.

use std::path::{Path, PathBuf};

/// A part with imports to check.
#[derive(Debug)]
pub(crate) struct Row {
    /// The folder relative to the workspace; the file of the same name belongs to it.
    pub(crate) place: PathBuf,
    /// The folder of its crate.
    pub(crate) krate: PathBuf,
    /// Its name in other rows.
    pub(crate) name: String,
    /// The rows that it may use, by index; empty for rows that are not checked.
    pub(crate) may: Vec<usize>,
}

#[derive(Debug)]
pub(crate) struct CodeMap {
    pub(crate) rows: Vec<Row>,
}

impl CodeMap {
    /// Parses the table; `crates` are the folders of the workspace's members. The error lists the
    /// inconsistent rows.
    pub(crate) fn parse(page: &str, crates: &[PathBuf]) -> Result<CodeMap, Vec<String>> {
        let table = page.lines().skip_while(|line| !line.starts_with("| where |")).skip(2);
        let lines = table.take_while(|line| line.starts_with('|')).map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            (cells.first().copied().unwrap_or_default(), cells.get(2).copied().unwrap_or_default())
        });
        let mut map = CodeMap { rows: Vec::new() };
        let mut wrong = Vec::new();
        for (place, may) in lines {
            let place = place.trim_matches('`').trim_end_matches('/');
            let place = PathBuf::from(place.strip_suffix(".rs").unwrap_or(place));
            let owner = crates
                .iter()
                .filter(|krate| place.starts_with(krate))
                .max_by_key(|krate| krate.components().count());
            let Some(krate) = owner else { continue };
            let Ok(inside) = place
                .strip_prefix(krate.join("src"))
                .or_else(|e| if place == *krate { Ok(Path::new("")) } else { Err(e) })
            else {
                continue;
            };
            let folder = last(krate);
            let name = match inside.display().to_string() {
                module if module.is_empty() => folder,
                module => format!("{folder}/{module}"),
            };
            let (may, unknown) = map.named(may, krate);
            wrong.extend(
                unknown
                    .iter()
                    .map(|unknown| format!("{name} may use {unknown}, which no row above it is")),
            );
            map.rows.push(Row { place, krate: krate.clone(), name, may });
        }
        if wrong.is_empty() { Ok(map) } else { Err(wrong) }
    }

    /// The rows that a cell names, and the words that match none.
    fn named(&self, cell: &str, krate: &Path) -> (Vec<usize>, Vec<String>) {
        let (mut may, mut unknown) = (Vec::new(), Vec::new());
        let cell = without_brackets(cell);
        let words = cell
            .split(',')
            .map(|word| word.trim().trim_matches('`'))
            .filter(|word| !word.is_empty());
        for word in words {
            let own = format!("{}/{word}", last(krate));
            let is_meant = |row: &Row| match word {
                "all above" => row.krate == krate,
                _ => {
                    row.name == own
                        || row.name == word
                        || (row.krate != krate && last(&row.krate) == word)
                }
            };
            let before = may.len();
            may.extend((0..self.rows.len()).filter(|index| is_meant(&self.rows[*index])));
            if may.len() == before {
                unknown.push(word.to_owned());
            }
        }
        (may, unknown)
    }

    /// The row of a file: the one with the longest matching path.
    pub(crate) fn row_of(&self, file: &Path) -> Option<usize> {
        let holding = self.rows.iter().enumerate().filter(|(_, row)| {
            file.starts_with(&row.place) || file == row.place.with_extension("rs")
        });
        holding.max_by_key(|(_, row)| row.place.components().count()).map(|(index, _)| index)
    }

    pub(crate) fn allows(&self, from: usize, to: usize) -> bool {
        from == to || self.rows[from].may.contains(&to)
    }

    /// Whether any part of a crate may use another crate.
    pub(crate) fn knows_crate(&self, krate: &Path, other: &Path) -> bool {
        let rows = self.rows.iter().filter(|row| row.krate == krate);
        rows.flat_map(|row| &row.may).any(|to| self.rows[*to].krate == other)
    }
}

fn last(krate: &Path) -> String {
    krate.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn without_brackets(cell: &str) -> String {
    let mut depth = 0;
    let kept = cell.chars().filter(|c| {
        depth += i32::from(*c == '(');
        let is_outside = depth == 0;
        depth -= i32::from(*c == ')');
        is_outside
    });
    kept.collect()
}
