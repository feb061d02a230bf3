//! A cluster of several brokers with one fake controller.

use std::collections::BTreeMap;

use weir_protocol::controller as rpc;

use super::{BrokerProcess, Client, FakeController, Launch};

/// The brokers and their controller.
pub(crate) struct Brokers {
    pub(crate) controller: FakeController,
    launches: BTreeMap<i32, Launch>,
    running: BTreeMap<i32, BrokerProcess>,
    data: BTreeMap<i32, tempfile::TempDir>,
}

impl Brokers {
    /// Brokers 0 to `count` - 1, which serve `topics`.
    pub(crate) async fn start(count: i32, topics: Vec<rpc::Topic>) -> Self {
        Self::start_with(count, topics, |launch| launch).await
    }

    /// As [`Brokers::start`], with changed command lines.
    pub(crate) async fn start_with(
        count: i32,
        topics: Vec<rpc::Topic>,
        change: impl Fn(Launch) -> Launch,
    ) -> Self {
        let mut brokers = Self {
            controller: FakeController::start(topics),
            launches: BTreeMap::new(),
            running: BTreeMap::new(),
            data: BTreeMap::new(),
        };
        for id in 0..count {
            let data = tempfile::tempdir().unwrap();
            let launch = Launch { id, ..Launch::new(data.path(), brokers.controller.address()) };
            brokers.launches.insert(id, change(launch));
            brokers.data.insert(id, data);
            brokers.restart(id).await;
        }
        brokers
    }

    /// Starts a broker again on its directory.
    pub(crate) async fn restart(&mut self, id: i32) {
        let broker = BrokerProcess::start(&self.launches[&id]).await;
        self.running.insert(id, broker);
    }

    pub(crate) fn broker(&mut self, id: i32) -> &mut BrokerProcess {
        self.running.get_mut(&id).unwrap()
    }

    /// Sends SIGKILL, and the controller fences the broker.
    pub(crate) async fn kill(&mut self, id: i32) {
        self.broker(id).kill().await;
        self.controller.change_broker(id, |broker| broker.fenced = true);
    }

    /// Empties the disk of a stopped broker.
    pub(crate) fn wipe(&mut self, id: i32) {
        let path = self.data[&id].path();
        std::fs::remove_dir_all(path).unwrap();
        std::fs::create_dir(path).unwrap();
    }

    /// The names in a broker's data directory.
    pub(crate) fn directories(&self, id: i32) -> Vec<String> {
        let entries = std::fs::read_dir(self.data[&id].path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// A connection to a broker.
    pub(crate) async fn client(&self, id: i32) -> Client {
        Client::connect(self.running[&id].kafka()).await
    }
}
