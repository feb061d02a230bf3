//! What this broker believes of the cluster: one immutable image, swapped whole.
//!
//! The controller client builds the next image from the controller's updates and publishes it;
//! `api` and `replica` read it. Nothing else changes it, and nothing here talks to anyone.

mod departed;
mod image;
mod whole;

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use self::departed::Departed;
pub use self::image::{
    BadUpdate, BrokerImage, Configs, Endpoint, LeaderHint, MetadataImage, NamedConfigs,
    PartitionImage, TopicImage,
};

/// Where the image is found: the newest by a load that takes no lock, and changes of its version by
/// awaiting them.
#[derive(Debug)]
pub struct Metadata {
    image: ArcSwap<MetadataImage>,
    version: watch::Sender<u64>,
    departed: Departed,
}

impl Metadata {
    /// With an empty image of version 0.
    pub fn new() -> Self {
        Self {
            image: ArcSwap::default(),
            version: watch::Sender::new(0),
            departed: Departed::default(),
        }
    }

    /// The newest image. Hold it for one request, not longer.
    pub fn load(&self) -> Guard<Arc<MetadataImage>> {
        self.image.load()
    }

    /// Swaps the image. Called by the controller client alone, after `replica` has taken up its
    /// part.
    pub fn publish(&self, image: MetadataImage) {
        let version = image.version;
        self.departed.note(&self.image.load(), &image);
        self.image.store(Arc::new(image));
        self.version.send_replace(version);
    }

    /// Returns once the image has another version than this.
    pub async fn changed(&self, version: u64) {
        // As below: the wait cannot fail.
        let _ = self.version.subscribe().wait_for(|&applied| applied != version).await;
    }

    /// The brokers that clients are told of: those that are alive in `image`, and for a moment
    /// longer those that were until just now.
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
