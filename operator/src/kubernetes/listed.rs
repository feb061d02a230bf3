//! What a list of a watch did not name is gone: it was deleted while nobody watched.

use std::collections::{BTreeMap, BTreeSet};

use super::topics::Key;

/// What the lists that are under way have named so far, by the watch: there is one for each namespace, or one for all.
#[derive(Debug, Default)]
pub(super) struct Listed {
    named: BTreeMap<usize, BTreeSet<Key>>,
}

impl Listed {
    /// A list begins. One that broke off before its end is forgotten.
    pub(super) fn begins(&mut self, scope: usize) {
        self.named.insert(scope, BTreeSet::new());
    }

    pub(super) fn names(&mut self, scope: usize, key: Key) {
        self.named.entry(scope).or_default().insert(key);
    }

    /// A list is at its end: which of the objects that are known, each with its watch, it did not name.
    pub(super) fn gone<'a>(&mut self, scope: usize, known: impl Iterator<Item = (&'a Key, usize)>) -> Vec<Key> {
        let named = self.named.remove(&scope).unwrap_or_default();
        let unnamed = known.filter(|(key, of)| *of == scope && !named.contains(key));
        unnamed.map(|(key, _)| key.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_takes_only_what_its_own_watch_has_and_it_did_not_name() {
        let key = |name| Key::new(Some("n"), Some(name));
        let known = [(key("stays"), 0), (key("goes"), 0), (key("elsewhere"), 1)];
        let known = || known.iter().map(|(key, scope)| (key, *scope));
        let mut listed = Listed::default();
        listed.begins(0);
        listed.names(0, key("goes"));
        // That list broke off; the next one counts.
        listed.begins(0);
        listed.begins(1);
        listed.names(0, key("stays"));
        assert_eq!(listed.gone(0, known()), [key("goes")]);
        assert_eq!(listed.gone(1, known()), [key("elsewhere")]);
    }
}
