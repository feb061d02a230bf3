//! Watches of the API server as changes: an object exists in this version, or it is gone. An object
//! that was deleted while no watch ran is missing in the next list.

use std::collections::BTreeSet;

use futures::stream::{self, BoxStream, SelectAll};
use futures::{StreamExt, TryStreamExt};
use kube::api::ObjectMeta;
use kube::core::{DeserializeGuard, NamespaceResourceScope, PartialObjectMeta};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tracing::warn;

use super::args::Scope;
use crate::controller::Key;

/// A change of an object of a kind.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change<K> {
    /// The object exists.
    Applied(K),
    /// It is gone, with its last version if a watch event had it.
    Deleted(Key, Option<K>),
    /// This watch has reported all of its objects once, including deletions of those that it knew.
    Listed(usize),
}

/// The changes of one kind, from all watches.
pub(super) type Changes<K> = SelectAll<BoxStream<'static, watcher::Result<Change<K>>>>;

/// One API for all namespaces, or one for each.
pub(super) fn apis<K>(client: &Client, scope: &Scope) -> Vec<Api<K>>
where
    K: Resource<Scope = NamespaceResourceScope>,
    K::DynamicType: Default,
{
    match scope {
        Scope::All => vec![Api::all(client.clone())],
        Scope::Some(namespaces) => {
            namespaces.iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect()
        }
    }
}

/// Watches all objects of a kind in the namespaces.
pub(super) fn in_scope<K>(client: &Client, scope: &Scope) -> Changes<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + 'static,
{
    let apis = apis::<DeserializeGuard<K>>(client, scope).into_iter();
    apis.enumerate().map(|(number, api)| changes(api, number).boxed()).collect()
}

/// Watches all objects of an API. `number` distinguishes watches of one kind.
pub(super) fn changes<K>(
    api: Api<DeserializeGuard<K>>,
    number: usize,
) -> impl stream::Stream<Item = watcher::Result<Change<K>>> + Send
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let mut listing = Listing::new(number);
    let events = watch_objects(api, watcher::Config::default()).default_backoff();
    events.map_ok(move |event| stream::iter(listing.changes(event)).map(Ok)).try_flatten()
}

/// The keys of a watch's objects, and of those that the list in progress has named.
#[derive(Debug, Default)]
struct Listing {
    number: usize,
    known: BTreeSet<Key>,
    named: BTreeSet<Key>,
}

impl Listing {
    fn new(number: usize) -> Self {
        Self { number, ..Self::default() }
    }

    fn changes<K: Resource<DynamicType = ()>>(
        &mut self,
        event: Event<DeserializeGuard<K>>,
    ) -> Vec<Change<K>> {
        match event {
            // A list that broke off is discarded.
            Event::Init => {
                self.named.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                self.named.insert(Key::of(object.meta()));
                self.applied(object)
            }
            Event::InitDone => {
                let gone = self.known.difference(&self.named);
                let gone = gone
                    .map(|key| Change::Deleted(key.clone(), None))
                    .chain([Change::Listed(self.number)]);
                let changes = gone.collect();
                self.known = std::mem::take(&mut self.named);
                changes
            }
            Event::Apply(object) => self.applied(object),
            Event::Delete(object) => {
                let key = Key::of(object.meta());
                self.known.remove(&key);
                vec![Change::Deleted(key, object.0.ok())]
            }
        }
    }

    fn applied<K: Resource<DynamicType = ()>>(
        &mut self,
        object: DeserializeGuard<K>,
    ) -> Vec<Change<K>> {
        self.known.insert(Key::of(object.meta()));
        match object.0 {
            Ok(mut object) => {
                // They are large, and nothing here reads them.
                object.meta_mut().managed_fields = None;
                vec![Change::Applied(object)]
            }
            Err(invalid) => {
                // The controller keeps the last valid version. The schema does not admit such a
                // resource, so it is older than the schema.
                warn!(
                    kind = %K::kind(&()),
                    name = invalid.metadata.name,
                    namespace = invalid.metadata.namespace,
                    error = invalid.error,
                    "cannot read a resource: its last valid version stays in force"
                );
                Vec::new()
            }
        }
    }
}

/// The metadata of an event.
pub(super) fn metadata_of<K>(event: Event<PartialObjectMeta<K>>) -> Event<ObjectMeta> {
    match event {
        Event::Apply(object) => Event::Apply(object.metadata),
        Event::Delete(object) => Event::Delete(object.metadata),
        Event::InitApply(object) => Event::InitApply(object.metadata),
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
    }
}

#[cfg(test)]
mod tests {
    use kube::core::error_boundary::InvalidObject;
    use weir_crds::{Topic, TopicSpec};

    use super::*;

    fn metadata(name: &str) -> ObjectMeta {
        ObjectMeta {
            namespace: Some("n".to_owned()),
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        }
    }

    fn topic(name: &str) -> DeserializeGuard<Topic> {
        let mut topic = Topic::new(name, TopicSpec::default());
        topic.metadata = metadata(name);
        DeserializeGuard(Ok(topic))
    }

    fn unreadable(name: &str) -> DeserializeGuard<Topic> {
        let error = "no topic".to_owned();
        DeserializeGuard(Err(InvalidObject { error, metadata: metadata(name) }))
    }

    fn told(listing: &mut Listing, event: Event<DeserializeGuard<Topic>>) -> Vec<String> {
        let changes = listing.changes(event).into_iter();
        let told = changes.map(|change| match change {
            Change::Applied(topic) => format!("+{}", topic.metadata.name.unwrap_or_default()),
            Change::Deleted(key, last) => {
                format!("-{}{}", key.name, if last.is_some() { " as it was" } else { "" })
            }
            Change::Listed(number) => format!("listed {number}"),
        });
        told.collect()
    }

    #[test]
    fn what_a_list_does_not_name_is_gone() {
        let listing = &mut Listing::new(7);
        assert!(told(listing, Event::Init).is_empty());
        for name in ["a", "b"] {
            assert_eq!(told(listing, Event::InitApply(topic(name))), [format!("+{name}")]);
        }
        assert_eq!(told(listing, Event::InitDone), ["listed 7"]);
        assert_eq!(told(listing, Event::Apply(topic("c"))), ["+c"]);
        assert_eq!(told(listing, Event::Delete(topic("a"))), ["-a as it was"]);
        // This list breaks off; the next one counts.
        told(listing, Event::Init);
        told(listing, Event::InitApply(topic("b")));
        told(listing, Event::Init);
        told(listing, Event::InitApply(topic("c")));
        told(listing, Event::InitApply(topic("d")));
        assert_eq!(told(listing, Event::InitDone), ["-b", "listed 7"]);
    }

    #[test]
    fn one_that_cannot_be_read_is_there_all_the_same() {
        let listing = &mut Listing::new(0);
        told(listing, Event::Init);
        told(listing, Event::InitApply(topic("a")));
        told(listing, Event::InitDone);
        told(listing, Event::Init);
        assert!(told(listing, Event::InitApply(unreadable("a"))).is_empty());
        assert_eq!(told(listing, Event::InitDone), ["listed 0"]);
        assert_eq!(told(listing, Event::Delete(unreadable("a"))), ["-a"]);
    }
}
