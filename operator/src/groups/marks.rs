//! PURE: the resets that a group has had, according to the marks in the group itself
//! (`weir_protocol::reset_marks`).

use weir_protocol::reset_marks::{self, SLOTS};

/// A mark of a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The reset's number on the group, from 0.
    pub number: i32,
    /// The hash of the reset's id.
    pub mark: i64,
}

impl Mark {
    /// The partition for which it is committed.
    pub fn slot(self) -> i32 {
        self.number.rem_euclid(SLOTS)
    }
}

/// The marks of a group: those of its last [`SLOTS`] resets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks(Vec<Mark>);

impl Marks {
    /// From the found marks, in any order.
    pub fn new(marks: impl IntoIterator<Item = Mark>) -> Self {
        let mut marks: Vec<Mark> = marks.into_iter().collect();
        marks.sort_unstable();
        Self(marks)
    }

    /// Whether the reset with this id has a mark.
    pub fn has(&self, id: &str) -> bool {
        let wanted = reset_marks::mark(id);
        self.0.iter().any(|known| known.mark == wanted)
    }

    /// The mark to commit with the reset of this id. It replaces the oldest one when all slots are
    /// used.
    pub fn next(&self, id: &str) -> Mark {
        Mark {
            number: self.0.last().map_or(0, |last| last.number.wrapping_add(1).max(0)),
            mark: reset_marks::mark(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_last_resets_are_remembered_and_no_other() {
        let count = SLOTS + 3;
        let mut slots: BTreeMap<i32, Mark> = BTreeMap::new();
        let known = |slots: &BTreeMap<i32, Mark>| Marks::new(slots.values().copied());
        for n in 0..count {
            let id = format!("r{n}");
            assert!(!known(&slots).has(&id));
            let mark = known(&slots).next(&id);
            slots.insert(mark.slot(), mark);
        }
        for n in 0..count {
            assert_eq!(known(&slots).has(&format!("r{n}")), n >= count - SLOTS, "{n}");
        }
        assert_eq!(i32::try_from(slots.len()), Ok(SLOTS));
    }
}
