//! The desk where brokers of a cluster without tables hand in their inventories, and learn when
//! tables exist again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tracing::info;
use weir_protocol::controller as rpc;
use weir_protocol::types::BrokerId;

use crate::controller::recovery::Inventory;

/// The desk of one cluster.
#[derive(Clone, Debug, Default)]
pub struct Desk {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    book: Mutex<Inventories>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Inventories {
    /// The incarnation of each broker whose inventory is here.
    heard: BTreeMap<BrokerId, Vec<u8>>,
    inventories: BTreeMap<BrokerId, Inventory>,
    waits_for: String,
    /// The id of the cluster once it has tables; empty before.
    cluster_id: String,
}

impl Desk {
    /// The desk of a cluster with tables, which it reports.
    pub fn closed(cluster_id: &str) -> Self {
        let desk = Self::default();
        desk.close(cluster_id);
        desk
    }

    fn book(&self) -> MutexGuard<'_, Inventories> {
        self.shared.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts a broker's inventory.
    ///
    /// # Errors
    /// When it is invalid.
    pub fn hand_in(
        &self,
        request: rpc::TakeStockRequest,
    ) -> Result<rpc::TakeStockResponse, String> {
        let broker = BrokerId(request.broker_id);
        let inventory = request.inventory.map(Inventory::try_from).transpose()?;
        let mut book = self.book();
        if let Some(inventory) = inventory.filter(|_| book.cluster_id.is_empty()) {
            info!(%broker, logs = inventory.logs.len(), knows_metadata = inventory.image.is_some(), cluster_id = inventory.cluster_id, "a broker says what is on its volume");
            book.heard.insert(broker, request.incarnation.clone());
            book.inventories.insert(broker, inventory);
            self.shared.news.notify_one();
        }
        Ok(rpc::TakeStockResponse {
            cluster_id: book.cluster_id.clone(),
            heard: book.heard.get(&broker) == Some(&request.incarnation),
            waits_for: book.waits_for.clone(),
        })
    }

    /// Reads the inventories.
    pub fn read<T>(&self, at: impl FnOnce(&BTreeMap<BrokerId, Inventory>) -> T) -> T {
        at(&self.book().inventories)
    }

    /// Sets what the recovery waits for, as brokers are told.
    pub fn say(&self, waits_for: &str) {
        waits_for.clone_into(&mut self.book().waits_for);
    }

    /// What the recovery waits for.
    pub fn said(&self) -> String {
        self.book().waits_for.clone()
    }

    /// Reports from now on that tables exist.
    pub fn close(&self, cluster_id: &str) {
        let mut book = self.book();
        cluster_id.clone_into(&mut book.cluster_id);
        book.inventories.clear();
    }

    /// Waits until a broker hands in an inventory.
    pub async fn news(&self) {
        self.shared.news.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(incarnation: u8, inventory: Option<rpc::Inventory>) -> rpc::TakeStockRequest {
        rpc::TakeStockRequest { broker_id: 1, incarnation: vec![incarnation], inventory }
    }

    #[tokio::test]
    async fn a_process_says_it_once_and_hears_when_there_are_tables() {
        let desk = Desk::default();
        let heard = |request| desk.hand_in(request).map(|answer| (answer.heard, answer.cluster_id));
        assert_eq!(
            heard(request(7, None)),
            Ok((false, String::new())),
            "this desk knows nothing of it"
        );
        assert_eq!(heard(request(7, Some(rpc::Inventory::default()))), Ok((true, String::new())));
        desk.news().await;
        assert_eq!(heard(request(7, None)), Ok((true, String::new())));
        assert_eq!(heard(request(8, None)), Ok((false, String::new())), "another process");
        let wrong = rpc::Inventory {
            cluster_id: "c".to_owned(),
            log_dir_id: vec![1],
            ..Default::default()
        };
        assert!(heard(request(8, Some(wrong))).is_err());
        assert_eq!(desk.read(BTreeMap::len), 1);
        desk.close("c");
        assert_eq!(heard(request(7, None)), Ok((true, "c".to_owned())));
        // An inventory that comes too late is ignored.
        assert_eq!(heard(request(9, Some(rpc::Inventory::default()))), Ok((false, "c".to_owned())));
    }
}
