//! The metadata image of this broker: one immutable value, replaced as a whole.
//!
//! The controller client builds the next image from the controller's updates and publishes it;
//! `api` and `replica` read it. Nothing else changes it, and this module does no I/O.

mod credentials;
mod departed;
mod image;
mod whole;

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;
use weir_security::scram::Stored;

use self::departed::Departed;
pub use self::image::{
    BadUpdate, BrokerImage, Configs, Endpoint, LeaderHint, MetadataImage, NamedConfigs,
    PartitionImage, TopicImage,
};

/// The holder of the image. A load of the newest one takes no lock, and changes of its version can
/// be awaited.
#[derive(Debug)]
pub struct Metadata {
    image: ArcSwap<MetadataImage>,
    version: watch::Sender<u64>,
    users: watch::Sender<Arc<Stored>>,
    departed: Departed,
}

impl Metadata {
    /// Creates an empty image of version 0.
    pub fn new() -> Self {
        Self {
            image: ArcSwap::default(),
            version: watch::Sender::new(0),
            users: watch::Sender::new(Arc::default()),
            departed: Departed::default(),
        }
    }

    /// Returns the newest image. Hold it for one request, not longer.
    pub fn load(&self) -> Guard<Arc<MetadataImage>> {
        self.image.load()
    }

    /// Replaces the image. Only the controller client calls it, after `replica` has applied its
    /// part.
    pub fn publish(&self, image: MetadataImage) {
        let (version, users) = (image.version, Arc::clone(&image.scram_credentials));
        self.departed.note(&self.image.load(), &image);
        self.image.store(Arc::new(image));
        self.version.send_replace(version);
        self.users.send_if_modified(|known| {
            let is_other = !Arc::ptr_eq(known, &users);
            *known = users;
            is_other
        });
    }

    /// The SCRAM credentials of the newest image. Only changes of them wake its receivers.
    pub fn users(&self) -> watch::Receiver<Arc<Stored>> {
        self.users.subscribe()
    }

    /// Returns once the image has a version other than this.
    pub async fn changed(&self, version: u64) {
        // As below: the wait cannot fail.
        let _ = self.version.subscribe().wait_for(|&applied| applied != version).await;
    }

    /// Returns the brokers for an answer to a client: those that are alive in `image`, and for a
    /// moment longer those that have just been fenced.
    pub fn known_brokers<'a>(&self, image: &'a MetadataImage) -> Vec<&'a Arc<BrokerImage>> {
        self.departed.with_the_living(image)
    }

    /// Returns once the image has at least this version.
    pub async fn wait_for(&self, version: u64) {
        // The sender is `self`, which lives as long as this borrow: the wait cannot fail.
        let _ = self.version.subscribe().wait_for(|&applied| applied >= version).await;
    }
}

impl Default for Metadata {
    fn default() -> Self {
        Self::new()
    }
}
