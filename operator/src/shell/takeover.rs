//! The start of a controller, and its restart: it takes over the state in the store.

use tracing::{info, warn};

use super::door::Clock;
use crate::controller::sessions::{Sessions, Timestamp};
use crate::controller::state::State;
use crate::controller::take_over;
use crate::store::{Store, StoreError};

/// Loads the state and commits the first changes. Brokers that do not know this controller's
/// address yet are not fenced before `excused_until`.
pub(super) async fn take_over_from(
    store: &mut impl Store,
    clock: &Clock,
    excused_until: Timestamp,
) -> Result<(State, Sessions), StoreError> {
    let mut state = store.load().await?;
    // Every controller leaves them, also without users.
    if state.credentials.mock_key().is_none() && state.cluster.controller_epoch.0 > 0 {
        warn!(
            "the store has no credentials of users: a version before wrote it, or they are lost, and then every user has to be set again"
        );
    }
    let changes = take_over(&state, &clock.moment());
    for change in &changes {
        state.apply(change);
    }
    store.commit(&state, &changes).await?;
    store.settle(&mut state, &changes);
    let sessions = Sessions::take_over(
        state.brokers.values().filter(|broker| !broker.fenced).map(|broker| broker.id),
        clock.now(),
        state.version,
        excused_until,
    );
    info!(controller_epoch = %state.cluster.controller_epoch, brokers = state.brokers.len(), topics = state.topics.len(), "took over the cluster");
    Ok((state, sessions))
}
