//! A store that loses its state with the process and fails on request, for tests of the shell.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Store, StoreError};
use crate::controller::state::{Change, State};

/// A handle that several controllers of a test share.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    shared: Arc<Mutex<Shared>>,
    /// The version of the store that this controller last read or wrote.
    seen: u64,
}

#[derive(Debug)]
struct Shared {
    state: State,
    version: u64,
    commits_until_failure: Option<u32>,
}

impl MemoryStore {
    /// A store that holds this state.
    pub fn new(state: State) -> Self {
        Self {
            shared: Arc::new(Mutex::new(Shared { state, version: 0, commits_until_failure: None })),
            seen: 0,
        }
    }

    /// Lets the next commits pass and the one after them fail, once.
    pub fn fail_after(&self, commits: u32) {
        self.lock().commits_until_failure = Some(commits);
    }

    /// The committed state.
    pub fn committed(&self) -> State {
        self.lock().state.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    async fn load(&mut self) -> Result<State, StoreError> {
        let (state, version) = {
            let shared = self.lock();
            (shared.state.clone(), shared.version)
        };
        self.seen = version;
        Ok(state)
    }

    async fn commit(&mut self, state: &State, _changes: &[Change]) -> Result<(), StoreError> {
        let mut shared = self.lock();
        match shared.commits_until_failure.take() {
            Some(0) => return Err(StoreError::Conflict),
            Some(left) => shared.commits_until_failure = Some(left - 1),
            None => {}
        }
        if shared.version != self.seen {
            return Err(StoreError::Conflict);
        }
        shared.version += 1;
        shared.state = state.clone();
        let version = shared.version;
        drop(shared);
        self.seen = version;
        Ok(())
    }
}
