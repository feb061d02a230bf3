//! What brokers show to other nodes, as their heartbeats say.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use weir_protocol::controller::NodeIdentity;
use weir_security::principal::Fingerprint;
use weir_tls::Shown;

use crate::controller::sessions::StreamId;

/// What the brokers with open streams show, by their domain and id.
#[derive(Clone, Debug, Default)]
pub struct ShownIdentities {
    all: Arc<Mutex<ByBroker>>,
}

type ByBroker = BTreeMap<(String, i32), (StreamId, Shown)>;

impl ShownIdentities {
    fn locked(&self) -> MutexGuard<'_, ByBroker> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A broker says it on this stream. What cannot be read is as if it were not said.
    pub(super) fn note(&self, domain: &str, broker: i32, stream: StreamId, said: &NodeIdentity) {
        let read = |bytes: &Vec<u8>| Fingerprint::try_from(&**bytes).ok();
        let Some(own) = read(&said.certificate) else { return };
        let shown = Shown { own, cas: said.cas.iter().filter_map(read).collect() };
        self.locked().insert((domain.to_owned(), broker), (stream, shown));
    }

    /// A stream has ended.
    pub(super) fn forget(&self, domain: &str, broker: i32, stream: StreamId) {
        let key = (domain.to_owned(), broker);
        let mut all = self.locked();
        if all.get(&key).is_some_and(|(of, _)| *of == stream) {
            all.remove(&key);
        }
    }

    /// What the brokers of a domain show.
    pub fn of(&self, domain: &str) -> BTreeMap<i32, Shown> {
        let all = self.locked();
        let of_domain = all.range((domain.to_owned(), i32::MIN)..=(domain.to_owned(), i32::MAX));
        of_domain.map(|((_, broker), (_, shown))| (*broker, shown.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_broker_shows_ends_with_its_stream() {
        let all = ShownIdentities::default();
        let said = |certificate: u8| NodeIdentity {
            certificate: vec![certificate; 32],
            cas: vec![vec![7; 32], vec![8]],
        };
        let own = |domain| all.of(domain).remove(&1).map(|shown| shown.own.as_bytes()[0]);
        all.note("c", 1, StreamId(1), &said(1));
        all.note("d", 1, StreamId(9), &said(9));
        assert_eq!((own("c"), own("d"), own("e")), (Some(1), Some(9), None));
        assert_eq!(all.of("c")[&1].cas.len(), 1, "what is no fingerprint is left out");
        all.note("c", 1, StreamId(1), &NodeIdentity::default());
        assert_eq!(own("c"), Some(1));
        all.note("c", 1, StreamId(2), &said(2));
        all.forget("c", 1, StreamId(1));
        assert_eq!(own("c"), Some(2), "that of the later stream");
        all.forget("c", 1, StreamId(2));
        assert_eq!((own("c"), own("d")), (None, Some(9)));
    }
}
