//! Names for the random member ids that the coordinator generates. `as=one` of an event names the
//! id in its response; other ids become `m1`, `m2` and so on.

use std::collections::BTreeMap;

use uuid::Uuid;

/// The length of the random part of an id.
const RANDOM: usize = 36;

/// The names given so far. Ids that clients choose serve as their own names.
#[derive(Debug, Default)]
pub(super) struct Names {
    ids: BTreeMap<String, String>,
    names: BTreeMap<String, String>,
    unnamed: usize,
    /// Lines about new names, since they were last taken.
    pub(super) news: Vec<String>,
}

impl Names {
    /// The id of the member with this name.
    pub(super) fn id(&self, name: &str) -> String {
        self.ids.get(name).cloned().unwrap_or_else(|| name.to_owned())
    }

    /// The name of the member with this id.
    pub(super) fn name(&mut self, id: &str) -> String {
        self.give(id, None);
        self.names.get(id).cloned().unwrap_or_else(|| id.to_owned())
    }

    /// The text with ids replaced by names.
    pub(super) fn within(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (id, name)| text.replace(id.as_str(), name))
    }

    /// Names an id that has no name yet; `name` is the name if the scenario gives one.
    pub(super) fn give(&mut self, id: &str, name: Option<&str>) {
        if self.names.contains_key(id) {
            assert!(
                name.is_none() || name == self.names.get(id).map(String::as_str),
                "{id} has a name already"
            );
            return;
        }
        let random =
            id.len().checked_sub(RANDOM).and_then(|from| Some((id.get(..from)?, id.get(from..)?)));
        let Some((prefix, _)) = random.filter(|(_, random)| Uuid::try_parse(random).is_ok()) else {
            assert!(name.is_none(), "{id} was not made up by the coordinator");
            return;
        };
        let name = name.map(str::to_owned).unwrap_or_else(|| {
            self.unnamed += 1;
            format!("m{}", self.unnamed)
        });
        self.news.push(format!("{name} is {prefix}*"));
        let before = self.ids.insert(name.clone(), id.to_owned());
        assert!(before.is_none(), "another member is called {name}");
        self.names.insert(id.to_owned(), name);
    }
}
