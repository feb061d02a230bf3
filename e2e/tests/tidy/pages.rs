//! Checks the documents: every link resolves, and the book has every page.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use super::{none, read, root, shown};

/// The documents of the project, without build output and packages.
pub(super) fn pages() -> Vec<PathBuf> {
    let all = weir_e2e::cluster::files_outside(&root(), Path::new("target"));
    let foreign = |f: &Path| {
        f.components().any(|c| ["node_modules", ".git"].iter().any(|name| c.as_os_str() == *name))
    };
    all.into_iter().filter(|f| f.extension().is_some_and(|e| e == "md") && !foreign(f)).collect()
}

fn events(text: &str) -> Parser<'_> {
    Parser::new_ext(text, Options::ENABLE_TABLES)
}

/// The link targets of a page, as written.
fn links(text: &str) -> Vec<String> {
    events(text)
        .filter_map(|event| match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                Some(dest_url.into_string())
            }
            _ => None,
        })
        .collect()
}

/// The anchors of a page's headings by GitHub's rule, which mdBook shares: lower case, hyphens for
/// spaces, and only letters, digits, hyphens and underscores.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut heading: Option<String> = None;
    for event in events(text) {
        match (&mut heading, event) {
            (_, Event::Start(Tag::Heading { .. })) => heading = Some(String::new()),
            (Some(title), Event::Text(part) | Event::Code(part)) => title.push_str(&part),
            (Some(title), Event::End(TagEnd::Heading(_))) => {
                let kept = title.to_lowercase().replace(' ', "-");
                let anchor: String =
                    kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect();
                // Suffixes for repeated headings.
                let numbered = (1..).map(|n| format!("{anchor}-{n}"));
                let free = std::iter::once(anchor.clone())
                    .chain(numbered)
                    .find(|name| !anchors.contains(name));
                anchors.extend(free);
                heading = None;
            }
            _ => {}
        }
    }
    anchors
}

/// The error of a link in a page, if any. External links are not checked.
fn broken(page: &Path, link: &str) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if path.is_empty() { page.to_owned() } else { page.parent().unwrap().join(path) };
    if !target.exists() {
        return Some(format!("{}: {link}: there is no such file", shown(page)));
    }
    let is_page = target.extension().is_some_and(|e| e == "md");
    (is_page && !anchor.is_empty() && !anchors(&read(&target)).contains(anchor))
        .then(|| format!("{}: {link}: the page has no such heading", shown(page)))
}

#[test]
fn links_lead_somewhere() {
    let pages = pages();
    assert!(pages.len() > 10, "where are the pages? {pages:?}");
    let wrong = pages
        .iter()
        .flat_map(|page| links(&read(page)).into_iter().filter_map(|link| broken(page, &link)));
    none("links", wrong.collect());
}

/// `docs/SUMMARY.md` is the book's table of contents: mdBook omits pages that it does not name.
#[test]
fn the_book_has_every_page() {
    let docs = root().join("docs");
    let named: BTreeSet<PathBuf> =
        links(&read(&docs.join("SUMMARY.md"))).iter().map(|link| docs.join(link)).collect();
    let missing = pages().into_iter().filter(|page| {
        page.starts_with(&docs) && !page.ends_with("SUMMARY.md") && !named.contains(page)
    });
    none("pages that docs/SUMMARY.md does not name", missing.map(|page| shown(&page)).collect());
}

/// The check above finds errors.
#[test]
fn broken_links_are_found() {
    let page = root().join("README.md");
    let broken = |link| broken(&page, link).is_some();
    assert!(broken("docs/nowhere.md") && broken("docs/README.md#nowhere") && broken("#nowhere"));
    assert!(
        !broken("docs/README.md") && !broken("#try-it") && !broken("https://example.com/nowhere")
    );
    let found = anchors("# A `b` — c?\n\n## Again\n\n## Again\n\n```\n# no heading\n```\n");
    assert_eq!(found, ["a-b--c", "again", "again-1"].map(str::to_owned).into());
    assert_eq!(
        links("[a](b.md) `[c](d.md)`\n\n    [e](f.md)\n\n[g][h]\n\n[h]: i.md\n"),
        ["b.md", "i.md"]
    );
}
