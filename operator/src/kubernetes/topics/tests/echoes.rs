//! Clients change what users write too, while the watch reports old versions: the resources, the
//! state and every acknowledged change agree in the end.
//!
//! A random history interleaves clients' requests, users' writes, refusals of the API server, and
//! the watch's events. These come in their order, as late as the history likes. So they report
//! versions that clients have changed since, and the operator's own writes.

mod settings;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;
use weir_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use weir_protocol::messages::create_topics_request::CreatableTopic;
use weir_protocol::messages::delete_topics_request::DeleteTopicState;
use weir_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use weir_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
    IncrementalAlterConfigsRequest,
};

use self::settings::{OF_BOTH, OF_CLIENTS, OF_USERS, Setting};
use super::*;
use crate::controller::state::State;
use crate::controller::{AdminRequest, AdminResponse};
use crate::kubernetes::offered;
use crate::store::Store as _;
use crate::store::kube::tests::server::Watched;

#[derive(Clone, Debug)]
enum Step {
    /// A client sets a setting; further steps follow before its answer.
    Client(usize),
    /// A client sets it to the value that it had before.
    Back(usize),
    /// A client unsets one.
    Unset(usize),
    /// A user sets a setting by a patch.
    User(usize),
    /// The same, just before the operator's next patch of that resource is handled.
    Race(usize),
    /// A client adds a partition.
    Grow,
    /// A client deletes the topic and creates it again after the controller has worked for a
    /// while.
    Remake(usize),
    /// The watch of the topics reports so many events.
    Topics(usize),
    /// The watch of the cluster does, and the keeper offers the last one.
    Cluster(usize),
    /// The controller works for a while.
    Run(usize),
    /// The API server begins or stops to refuse patches of the topic.
    Refuse(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let both = OF_BOTH.len();
    prop_oneof![
        8 => (0..OF_CLIENTS.len() + both).prop_map(Step::Client),
        1 => (0..OF_CLIENTS.len()).prop_map(Step::Unset),
        4 => (0..OF_USERS.len() + both).prop_map(Step::User),
        2 => (0..OF_USERS.len() + both).prop_map(Step::Race),
        1 => Just(Step::Grow),
        1 => prop::sample::select(vec![0, 3, 30, 300]).prop_map(Step::Remake),
        5 => (1..4_usize).prop_map(Step::Topics),
        4 => (1..4_usize).prop_map(Step::Cluster),
        6 => prop_oneof![1..12_usize, 50..300_usize].prop_map(Step::Run),
        1 => any::<bool>().prop_map(Step::Refuse),
    ]
}

/// A setting by its resource and its name.
type Name = (&'static str, &'static str);

/// A request whose answer is not read yet.
enum Asked {
    Alter(Name, Option<i64>),
    Grow(i32),
    Delete,
    Create,
}

struct History {
    world: World,
    /// The events that the watches have not reported yet.
    topics: VecDeque<Watched>,
    clusters: VecDeque<Watched>,
    offers: Vec<oneshot::Receiver<Answer>>,
    asked: Vec<(Asked, oneshot::Receiver<Answer>)>,
    /// The last acknowledged value of each setting that a client changed.
    clients: BTreeMap<Name, Option<i64>>,
    /// The values that users are to write, and those that they wrote, with the resource's metadata.
    planned: BTreeSet<i64>,
    users: BTreeMap<Name, Vec<(i64, Value)>>,
    /// The number of partitions that clients asked for, and that was acknowledged.
    partitions: (i32, i32),
    number: i64,
}

impl History {
    async fn begin() -> Self {
        let world = World::new("n", &json!({"brokers": {"replicas": 1}})).await;
        let mut history = Self {
            world,
            topics: VecDeque::new(),
            clusters: VecDeque::new(),
            offers: Vec::new(),
            asked: Vec::new(),
            clients: BTreeMap::new(),
            planned: BTreeSet::new(),
            users: BTreeMap::new(),
            partitions: (1, 1),
            number: 0,
        };
        history.create().await;
        history.end().await;
        history
    }

    async fn ask(&mut self, asked: Asked, request: AdminRequest) {
        let request = self.world.broker.asks(request);
        let answer = self.world.hosted.controller.submit(request).await.unwrap();
        self.asked.push((asked, answer));
    }

    async fn create(&mut self) {
        let topic = CreatableTopic {
            name: "orders".to_owned(),
            num_partitions: 1,
            replication_factor: 1,
            ..Default::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
        self.ask(Asked::Create, AdminRequest::CreateTopics(request)).await;
        self.partitions.0 = 1;
    }

    async fn delete(&mut self) {
        let topic = DeleteTopicState { name: Some("orders".to_owned()), ..Default::default() };
        let request = DeleteTopicsRequest { topics: vec![topic], ..Default::default() };
        self.ask(Asked::Delete, AdminRequest::DeleteTopics(request)).await;
    }

    async fn grow(&mut self) {
        self.partitions.0 += 1;
        let count = self.partitions.0;
        let topic = CreatePartitionsTopic {
            name: "orders".to_owned(),
            count,
            assignments: None,
            ..Default::default()
        };
        let request = CreatePartitionsRequest { topics: vec![topic], ..Default::default() };
        self.ask(Asked::Grow(count), AdminRequest::CreatePartitions(request)).await;
    }

    async fn alter(&mut self, setting: &'static Setting, value: Option<i64>) {
        let entry = AlterableConfig {
            name: setting.name.to_owned(),
            config_operation: i8::from(value.is_none()),
            value: value.map(|value| value.to_string()),
            ..Default::default()
        };
        let resource = AlterConfigsResource {
            resource_type: setting.kind,
            resource_name: setting.of.to_owned(),
            configs: vec![entry],
            ..Default::default()
        };
        let request =
            IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
        let asked = Asked::Alter((setting.of, setting.name), value);
        self.ask(asked, AdminRequest::IncrementalAlterConfigs(request)).await;
    }

    /// The path and the patch with which a user sets a setting.
    fn users_patch(&mut self, which: usize) -> (String, Value) {
        let setting = OF_USERS.iter().chain(&OF_BOTH).nth(which).unwrap();
        self.number += 1;
        let value = setting.numbered(self.number);
        self.planned.insert(value);
        let patch = json!({setting.name: value});
        let wrapped = setting.at.iter().rev().fold(patch, |patch, name| json!({(*name): patch}));
        (setting.path(), wrapped)
    }

    async fn take(&mut self, step: &Step) {
        match step {
            Step::Client(which) => {
                self.number += 1;
                let setting = OF_CLIENTS.iter().chain(&OF_BOTH).nth(*which).unwrap();
                self.alter(setting, Some(setting.numbered(self.number))).await;
            }
            Step::Back(which) => {
                let setting = OF_CLIENTS.iter().chain(&OF_BOTH).nth(*which).unwrap();
                self.alter(setting, Some(setting.numbered(1))).await;
            }
            Step::Unset(which) => self.alter(&OF_CLIENTS[*which], None).await,
            Step::User(which) => {
                let (path, patch) = self.users_patch(*which);
                self.world.server.merge(&path, &patch);
            }
            Step::Race(which) => {
                let (path, patch) = self.users_patch(*which);
                self.world.server.race_by_patch(&path, patch);
            }
            Step::Grow => self.grow().await,
            Step::Remake(pause) => {
                self.delete().await;
                self.run(*pause).await;
                self.create().await;
            }
            Step::Topics(count) => self.report_topics(*count).await,
            Step::Cluster(count) => self.report_cluster(*count).await,
            Step::Run(count) => self.run(*count).await,
            Step::Refuse(true) => {
                self.world.server.refuse("PATCH", TOPIC, 422, "a rule of a webhook");
            }
            Step::Refuse(false) => self.world.server.allow_all(),
        }
        self.hear();
    }

    /// The other tasks work for a while.
    async fn run(&self, turns: usize) {
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }

    /// Takes the events of the API server, and notes the users' writes in them.
    fn hear(&mut self) {
        for event in self.world.server.take_events() {
            for setting in Setting::all().filter(|setting| setting.path() == event.path) {
                if let Some(value) = setting.value(&event.object)
                    && self.planned.remove(&value)
                {
                    let metadata = event.object["metadata"].clone();
                    let name = (setting.of, setting.name);
                    self.users.entry(name).or_default().push((value, metadata));
                }
            }
            if event.path.contains("/topics/") {
                self.topics.push_back(event);
            } else if event.path == cluster_path("n") {
                self.clusters.push_back(event);
            }
        }
    }

    async fn report_topics(&mut self, count: usize) {
        for _ in 0..count {
            let Some(event) = self.topics.pop_front() else { return };
            let topic: Topic = serde_json::from_value(event.object).unwrap();
            if event.is_deleted {
                self.world.topics.remove(&Key::of(&topic.metadata), Some(topic.clone())).await;
            } else {
                self.world.topics.put(topic).await;
            }
        }
    }

    /// As the keeper offers its cluster (`keeper::hosting`): the newest version, or an older one.
    async fn report_cluster(&mut self, count: usize) {
        let count = count.min(self.clusters.len());
        let Some(last) = self.clusters.drain(..count).next_back() else { return };
        let cluster: KafkaCluster = serde_json::from_value(last.object).unwrap();
        self.world.hosted.cache.observe_cluster(cluster.clone());
        let event =
            super::Asked::Apply(vec![Resource::Cluster(Box::new(offered::cluster(&cluster)))]);
        self.offers.push(self.world.hosted.controller.submit(event).await.unwrap());
    }

    /// Reads the answers to all requests.
    async fn answers(&mut self) {
        for (asked, answer) in std::mem::take(&mut self.asked) {
            let code = code(answer.await.unwrap().reply);
            match asked {
                Asked::Alter(name, value) if code == 0 => drop(self.clients.insert(name, value)),
                Asked::Grow(count) if code == 0 => self.partitions.1 = count,
                // The API server refused it.
                Asked::Alter(..) | Asked::Grow(_) => assert!(matches!(code, 40 | 44), "{code}"),
                Asked::Create => assert_eq!(code, 0, "it was deleted before"),
                Asked::Delete => {
                    assert_eq!(code, 0, "it was created before");
                    self.clients.retain(|(of, _), _| *of != "orders");
                    self.partitions.1 = 1;
                }
            }
        }
        self.hear();
    }

    /// What clients were told is in the resources.
    fn check_acknowledged(&self, when: &str) {
        for setting in &OF_CLIENTS {
            let there = self.world.server.get(&setting.path()).unwrap();
            let wanted = self.clients.get(&(setting.of, setting.name)).copied().flatten();
            assert_eq!(setting.value(&there), wanted, "{when}: {} of {}", setting.name, setting.of);
        }
        let there = self.world.server.get(TOPIC).unwrap();
        assert_eq!(there["spec"]["partitions"], self.partitions.1, "{when}: partitions");
    }

    /// Everything is answered, the watches have reported everything, and nothing is lost.
    async fn end(&mut self) {
        self.world.server.allow_all();
        self.answers().await;
        self.check_acknowledged("once it is answered");
        loop {
            self.report_topics(usize::MAX).await;
            self.report_cluster(usize::MAX).await;
            self.world.settle().await;
            for offer in std::mem::take(&mut self.offers) {
                let reply = offer.await.unwrap().reply;
                assert!(matches!(reply, Reply::Applied(_)), "{reply:?}");
            }
            self.hear();
            if self.topics.is_empty() && self.clusters.is_empty() {
                break;
            }
        }
        self.check_acknowledged("in the end");
        for setting in &OF_USERS {
            let there = self.world.server.get(&setting.path()).unwrap();
            self.check_one_of(setting, &there, &self.users_values(setting, &there));
        }
        for setting in &OF_BOTH {
            let there = self.world.server.get(&setting.path()).unwrap();
            let mut values = self.users_values(setting, &there);
            values.push(self.clients.get(&(setting.of, setting.name)).copied().flatten());
            self.check_one_of(setting, &there, &values);
        }
        let state = self.world.hosted.controller.committed().borrow().clone();
        self.check_state(&state);
        let cluster: KafkaCluster =
            serde_json::from_value(self.world.server.get(&cluster_path("n")).unwrap()).unwrap();
        let leads = Arc::clone(&self.world.topics.context.leads);
        let client = self.world.server.client();
        let mut store = KubeStore::new(client, &cluster, leads, ClusterCache::default());
        self.check_state(&store.load().await.unwrap());
    }

    /// The value that users gave a setting last.
    fn users_values(&self, setting: &Setting, there: &Value) -> Vec<Option<i64>> {
        let (uid, id) = ("/metadata/uid", "/metadata/annotations/weir.dev~1topic-id");
        let now = |at: &str| there.pointer(at);
        let was = |metadata: &Value, at: &str| {
            metadata.pointer(at.trim_start_matches("/metadata")).cloned()
        };
        let written = self.users.get(&(setting.of, setting.name)).into_iter().flatten();
        let last = written.rev().find(|(_, metadata)| was(metadata, uid).as_ref() == now(uid));
        match last {
            None => vec![None],
            Some((value, metadata)) if was(metadata, id).as_ref() == now(id) => vec![Some(*value)],
            // A client deleted the topic and created it again before the operator wrote either. Its
            // resource stayed, and the user wrote before or after the controller's decision.
            Some((value, _)) => vec![None, Some(*value)],
        }
    }

    fn check_one_of(&self, setting: &Setting, there: &Value, values: &[Option<i64>]) {
        let value = setting.value(there);
        let (name, of) = (setting.name, setting.of);
        assert!(values.contains(&value), "{name} of {of}: {value:?} is none of {values:?}");
    }

    fn check_state(&self, state: &State) {
        let cluster: KafkaCluster =
            serde_json::from_value(self.world.server.get(&cluster_path("n")).unwrap()).unwrap();
        assert_eq!(state.cluster.resource.spec, cluster.spec);
        let there = self.world.topic();
        assert_eq!(state.topics.len(), 1);
        let topic = state.topic_by_name("orders").unwrap();
        assert_eq!(topic.resource.spec, there.spec);
        assert_eq!(topic_id_on(&there), Some(topic.id));
        let known: Vec<_> = state.objects.topics.iter().map(|(_, object)| &object.uid).collect();
        assert_eq!(known, [there.metadata.uid.as_ref().unwrap()], "former objects are forgotten");
    }
}

fn code(reply: Reply) -> i16 {
    let Reply::Admin(response) = reply else { panic!("{reply:?}") };
    match response {
        AdminResponse::CreateTopics(response) => response.topics[0].error_code,
        AdminResponse::DeleteTopics(response) => response.responses[0].error_code,
        AdminResponse::CreatePartitions(response) => response.results[0].error_code,
        AdminResponse::IncrementalAlterConfigs(response) => response.responses[0].error_code,
        other => panic!("{other:?}"),
    }
}

fn play(steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut history = History::begin().await;
        for step in steps {
            history.take(step).await;
        }
        history.end().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn clients_and_users_do_not_undo_each_other(steps in prop::collection::vec(step(), 1..60)) {
        play(&steps);
    }
}

/// Clients set other settings one after the other, and the watch reports each of the operator's own
/// writes just after the next request.
#[test]
fn the_operators_own_writes_undo_nothing() {
    let mut steps = Vec::new();
    for _ in 0..3 {
        for which in 0..OF_CLIENTS.len() {
            steps.extend([Step::Client(which), Step::Topics(1), Step::Cluster(1), Step::Run(200)]);
        }
    }
    play(&steps);
}

/// A client deletes a topic and creates it again before the watch has reported either. The watch
/// reports the former topic's versions and its deletion at each point of that.
#[test]
fn a_topic_that_is_created_again_stays() {
    for pause in [0, 300] {
        for reported in 0..4 {
            play(&[
                Step::User(0),
                Step::Remake(pause),
                Step::Topics(reported),
                Step::Run(300),
                Step::Client(0),
                Step::Topics(1),
                Step::Run(300),
            ]);
            // The same twice: an object that was deleted before the last one is reported.
            play(&[
                Step::User(0),
                Step::Remake(pause),
                Step::Run(300),
                Step::Remake(3),
                Step::Topics(reported),
                Step::Run(300),
            ]);
        }
    }
}

/// A client's change that sets a user's back is written, though it leaves the state as it was
/// before both.
#[test]
fn a_change_back_in_the_same_batch_is_written() {
    let both = OF_CLIENTS.len();
    play(&[
        Step::Client(both),
        Step::Run(300),
        Step::Topics(9),
        Step::Run(300),
        Step::User(OF_USERS.len()),
        Step::Topics(9),
        Step::Back(both),
        Step::Run(300),
    ]);
}

/// A client unsets the last of a group of settings just after a user has set another one of it.
#[test]
fn what_a_user_writes_beside_a_clients_last_setting_stays() {
    for (client, user) in [(0, 0), (5, 2), (6, 3)] {
        let steps = [Step::Client(client), Step::Run(300), Step::Race(user), Step::Unset(client)];
        play(&steps);
    }
}
