//! Groups whose resources were deleted with the policy `Delete`, until they have no members.
//!
//! Kafka deletes only empty groups. Until then a mark in the group itself records the deletion
//! (`weir_protocol::reset_marks`), so that a restarted operator finds it. A new resource for the
//! group cancels it.

use std::collections::BTreeSet;

use tracing::{debug, info, warn};
use weir_protocol::error::ErrorCode;

use super::backend::GroupBackend;
use super::execute;
use crate::kafka::{Client, KafkaError};

/// The most groups that wait. Groups deleted beyond that stay in Kafka.
const DYING_MAX: usize = 1000;

/// A group to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    id: String,
    /// Whether the group has the mark.
    marked: bool,
}

/// The groups to be deleted, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Dying {
    groups: Vec<Group>,
    /// Whether the marks of earlier operators have been read.
    looked: bool,
}

impl Dying {
    /// Adds a group whose resource was deleted with that policy.
    pub(super) fn add(&mut self, id: &str) {
        self.take(id, false);
    }

    fn take(&mut self, id: &str, marked: bool) {
        if let Some(known) = self.groups.iter_mut().find(|known| known.id == id) {
            known.marked |= marked;
        } else if self.groups.len() >= DYING_MAX {
            warn!(
                group = id,
                "too many deleted groups wait until they have no members: this one stays, delete it in Kafka"
            );
        } else {
            self.groups.push(Group { id: id.to_owned(), marked });
        }
    }

    /// Removes the groups that have a resource again, and returns them.
    fn spare(&mut self, owned: &BTreeSet<String>) -> Vec<Group> {
        let (spared, left) = std::mem::take(&mut self.groups)
            .into_iter()
            .partition(|group| owned.contains(&group.id));
        self.groups = left;
        spared
    }

    /// Deletes the groups without members, and marks the others.
    pub(super) async fn step<H: GroupBackend>(&mut self, home: &H, client: &Client) {
        if !self.looked {
            match execute::marked_for_deletion(client).await {
                Ok(marked) => {
                    marked.iter().for_each(|id| self.take(id, true));
                    self.looked = true;
                }
                Err(error) => debug!(%error, "look for groups that are to be deleted"),
            }
        }
        let owned = home.groups().iter().map(|resource| resource.group_id().to_owned()).collect();
        for spared in self.spare(&owned) {
            if !spared.marked {
                continue;
            }
            let done = home.may_act().await
                && told(&spared.id, execute::mark_deletion(client, &spared.id, false).await);
            if !done {
                self.groups.push(spared);
            }
        }
        let mut waiting = Vec::new();
        for mut group in std::mem::take(&mut self.groups) {
            if owned.contains(&group.id) || !home.may_act().await {
                waiting.push(group);
                continue;
            }
            match execute::delete(client, &group.id).await {
                Ok(()) => {
                    info!(group = group.id, "deleted a group whose ConsumerGroup was deleted")
                }
                Err(error) => {
                    debug!(group = group.id, %error, "delete a group");
                    let has_members =
                        matches!(error, KafkaError::Code(_, ErrorCode::NonEmptyGroup));
                    if has_members && !group.marked {
                        group.marked =
                            told(&group.id, execute::mark_deletion(client, &group.id, true).await);
                    }
                    waiting.push(group);
                }
            }
        }
        self.groups = waiting;
    }
}

fn told(group: &str, done: Result<(), KafkaError>) -> bool {
    if let Err(error) = &done {
        debug!(group, %error, "mark a group for deletion");
    }
    done.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_waits_once_and_is_spared_by_a_resource() {
        let mut dying = Dying::default();
        for (id, marked) in [("a", false), ("b", true), ("a", true), ("b", false)] {
            dying.take(id, marked);
        }
        let group = |id: &str, marked| Group { id: id.to_owned(), marked };
        assert_eq!(dying.groups, [group("a", true), group("b", true)]);
        assert_eq!(dying.spare(&["b".to_owned(), "c".to_owned()].into()), [group("b", true)]);
        assert_eq!(dying.groups, [group("a", true)]);
    }

    #[test]
    fn those_that_wait_are_bounded() {
        let mut dying = Dying::default();
        (0..DYING_MAX + 5).for_each(|n| dying.add(&n.to_string()));
        assert_eq!((dying.groups.len(), dying.groups[0].id.as_str()), (DYING_MAX, "0"));
    }
}
