//! A controller without a shell: state, sessions and a clock that the test advances. Events and
//! outcomes are lines of text.

mod requests;
mod say;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff;
use uuid::Uuid;
use weir_crds::KafkaCluster;
use weir_protocol::types::{
    BrokerEpoch, BrokerId, ControllerEpoch, LeaderEpoch, PartitionEpoch, TopicId,
};
use weir_scenario::EventArgs;

use self::requests::admin_request;
use self::say::{say_change, say_reply};
use crate::controller::sessions::{Sessions, StreamId, Timestamp};
use crate::controller::state::{Change, Cluster, Endpoint, State};
use crate::controller::{
    AlterPartitions, Event, Heartbeat, IsrChange, Key, Kind, Moment, Registration, Reply, Resource,
    decide, take_over,
};

/// The controller of a cluster named `test` with the id `cluster`.
pub(super) struct World {
    pub(super) state: State,
    pub(super) sessions: Sessions,
    pub(super) now: Timestamp,
    seed: u128,
    last: Vec<Change>,
    /// The part of a commit that was cut off before it reached the registry.
    late: Vec<Change>,
    /// The state before the last event.
    pub(super) before: State,
}

impl World {
    pub(super) fn new() -> Self {
        let object = serde_json::json!({"apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster", "metadata": {"name": "test", "generation": 1}, "spec": {}});
        let resource: KafkaCluster = serde_json::from_value(object).unwrap();
        let cluster = Cluster {
            controller_epoch: ControllerEpoch(1),
            ..Cluster::new("cluster".to_owned(), resource)
        };
        let state = State::new(cluster);
        Self {
            before: state.clone(),
            state,
            sessions: Sessions::default(),
            now: Timestamp(0),
            seed: 0,
            last: Vec::new(),
            late: Vec::new(),
        }
    }

    /// Decides and applies; returns the reply and the changes.
    pub(super) fn event(&mut self, event: Event) -> (Reply, Vec<Change>) {
        let moment = self.moment();
        let outcome = decide(&self.state, &self.sessions, event, &moment);
        self.apply(&outcome.changes);
        (outcome.reply, outcome.changes)
    }

    fn moment(&mut self) -> Moment {
        self.seed += 1 << 64;
        Moment {
            now: self.now,
            wall: Time(jiff::Timestamp::UNIX_EPOCH),
            seed: self.seed,
            given: BTreeMap::new(),
        }
    }

    fn apply(&mut self, changes: &[Change]) {
        self.before = self.state.clone();
        changes.iter().for_each(|change| self.state.apply(change));
        self.last = changes.to_vec();
    }

    /// Another controller takes over, as the shell does it. With `cut_off` the last commit reached
    /// the partitions but not the registry. With `overtaken` it reached the registry later, unknown
    /// to the last takeover. Brokers have `excused_ms` to find the new controller.
    pub(super) fn take_over(
        &mut self,
        cut_off: bool,
        overtaken: bool,
        excused_ms: u64,
    ) -> Vec<Change> {
        if cut_off {
            self.state = self.before.clone();
            let (registry, partitions) =
                std::mem::take(&mut self.last).into_iter().partition(|change| {
                    matches!(
                        change,
                        Change::Broker(_)
                            | Change::RemoveBroker(_)
                            | Change::NextBrokerEpoch(_)
                            | Change::NextProducerId(_)
                    )
                });
            self.late = registry;
            partitions.iter().for_each(|change: &Change| self.state.apply(change));
        }
        if overtaken {
            std::mem::take(&mut self.late).iter().for_each(|change| self.state.apply(change));
        }
        let moment = self.moment();
        let changes = take_over(&self.state, &moment);
        self.apply(&changes);
        let alive =
            self.state.brokers.values().filter(|broker| !broker.fenced).map(|broker| broker.id);
        self.sessions =
            Sessions::take_over(alive, self.now, self.state.version, self.now.plus(excused_ms));
        changes
    }

    /// The changes of the last event.
    pub(super) fn last_changes(&self) -> Vec<Change> {
        self.last.clone()
    }

    /// Registers a broker as the shell does.
    pub(super) fn register(&mut self, registration: Registration) -> (Reply, Vec<Change>) {
        let (broker, is_certified) = (registration.broker, registration.is_certified);
        // The cluster has a place for every broker that registers, unless a scenario changes that
        // later.
        if self.state.is_cordoned(broker) && !self.state.brokers.contains_key(&broker) {
            let mut resource = KafkaCluster::clone(&self.state.cluster.resource);
            resource.spec.brokers.replicas = broker.0 + 1;
            self.state.apply(&Change::Cluster(std::sync::Arc::new(resource)));
        }
        let outcome = self.event(Event::Register(registration));
        if matches!(outcome.0, Reply::Registered(_)) {
            self.sessions.opened(broker, StreamId(0), self.now, self.state.version);
            if is_certified {
                self.sessions.certified(broker);
            }
        }
        outcome
    }

    /// Fences brokers with expired sessions, as the shell does.
    pub(super) fn tick(&mut self) -> (Reply, Vec<Change>) {
        let expired = self.sessions.expired(self.now);
        let outcome = self.event(Event::Tick);
        for broker in expired {
            self.sessions.ended(broker);
        }
        outcome
    }

    pub(super) fn epoch_of(&self, id: BrokerId) -> BrokerEpoch {
        self.state.brokers.get(&id).map_or(BrokerEpoch(-1), |broker| broker.epoch)
    }

    /// One line of a scenario: a verb, names, and `key=value` pairs or flags.
    pub(super) fn play(&mut self, line: &str) -> Vec<String> {
        weir_scenario::play_event(line, |words| self.play_words(words))
    }

    pub(super) fn play_words(&mut self, words: &mut EventArgs<'_>) -> Vec<String> {
        let before = self.state.clone();
        let (reply, changes) = match words.next() {
            "register" => {
                let mut registration = registration(words);
                // `log=topic:partition:epoch`
                for log in words.texts("log") {
                    let parts: Vec<&str> = log.split(':').collect();
                    let topic = self.state.topic_by_name(parts[0]).unwrap().id;
                    let epoch = LeaderEpoch(parts[2].parse().unwrap());
                    registration.leader_epochs.push((topic, parts[1].parse().unwrap(), epoch));
                }
                self.register(registration)
            }
            "readdress" => {
                // `before=LISTENER,... to=LISTENER,...`
                let named = |name: &str| -> Vec<Endpoint> {
                    let all = words.text(name).unwrap_or_default().split(',');
                    all.filter(|listener| !listener.is_empty()).map(endpoint).collect()
                };
                let (before, endpoints) = (named("before"), named("to"));
                self.event(Event::UpdateEndpoints { broker: broker(words), before, endpoints })
            }
            "heartbeat" => {
                let broker = broker(words);
                let epoch =
                    words.number("epoch").map_or_else(|| self.epoch_of(broker), BrokerEpoch);
                let applied_version = if words.flag("behind") { 0 } else { self.state.version };
                self.sessions.heard(broker, applied_version, self.now);
                self.event(Event::Heartbeat(Heartbeat {
                    broker,
                    epoch,
                    applied_version,
                    ready: words.flag("ready"),
                    wants_shutdown: words.flag("stop"),
                    log_dir_failed: words.flag("failed"),
                }))
            }
            "broke" => {
                self.sessions.broke(broker(words), StreamId(0), self.now);
                self.last.clear();
                (Reply::Nothing, Vec::new())
            }
            "gone" => {
                self.sessions.gone(broker(words), StreamId(0));
                self.tick()
            }
            "wait" => {
                self.now = self.now.plus(words.next_number());
                self.tick()
            }
            "isr" => {
                let request = self.isr_change(words);
                self.event(Event::AlterPartitions(request))
            }
            "take-over" => {
                let excused_ms = words.number("excused").unwrap_or_default();
                (
                    Reply::Nothing,
                    self.take_over(words.flag("cut-off"), words.flag("overtaken"), excused_ms),
                )
            }
            "balance" => self.event(Event::Balance),
            "producer-ids" => {
                let broker = broker(words);
                let epoch =
                    words.number("epoch").map_or_else(|| self.epoch_of(broker), BrokerEpoch);
                self.event(Event::AllocateProducerIds { broker, epoch })
            }
            "apply" => {
                let objects = serde_json::from_str::<Vec<serde_json::Value>>(words.rest()).unwrap();
                self.event(Event::Apply(objects.into_iter().map(resource).collect()))
            }
            "retain" => {
                let key = key(&self.state.cluster, words.next());
                self.event(Event::Retain(key))
            }
            "delete-resource" => {
                let key = key(&self.state.cluster, words.next());
                self.event(Event::Delete(Kind::Topic, key))
            }
            verb => {
                let request = admin_request(verb, words);
                let broker = BrokerId(0);
                self.event(Event::Admin { broker, epoch: self.epoch_of(broker), request })
            }
        };
        let mut lines = say_reply(&reply);
        lines.extend(changes.iter().map(|change| say_change(&before, &self.state, change)));
        lines
    }
}

impl World {
    /// `isr BROKER TOPIC PARTITION 0,1,2`: the ISR that a broker, or `leader`, proposes. Epochs
    /// that are not given are those of the state; `2@7` is a member with its own epoch.
    fn isr_change(&self, words: &mut EventArgs<'_>) -> AlterPartitions {
        let (broker, topic, partition) = (words.next(), words.next(), words.next_number());
        let topic = self.state.topic_by_name(topic);
        let known = topic.and_then(|topic| topic.partitions.get(usize::try_from(partition).ok()?));
        let broker = match broker {
            "leader" => known.and_then(|known| known.leader).unwrap_or(BrokerId(-1)),
            id => BrokerId(id.parse().unwrap()),
        };
        let members = words.next().split(',').filter(|member| *member != "none").map(|member| {
            let (id, epoch) =
                member.split_once('@').map_or((member, None), |(id, epoch)| (id, Some(epoch)));
            let id = BrokerId(id.parse().unwrap());
            (
                id,
                epoch
                    .map_or_else(|| self.epoch_of(id), |epoch| BrokerEpoch(epoch.parse().unwrap())),
            )
        });
        let change = IsrChange {
            topic: topic.map_or(TopicId::ZERO, |topic| topic.id),
            partition,
            leader_epoch: words.number("leader-epoch").map_or_else(
                || known.map_or(LeaderEpoch(0), |known| known.leader_epoch),
                LeaderEpoch,
            ),
            partition_epoch: words.number("partition-epoch").map_or_else(
                || known.map_or(PartitionEpoch(0), |known| known.partition_epoch),
                PartitionEpoch,
            ),
            isr: members.collect(),
            recovered: words.flag("recovered"),
        };
        AlterPartitions {
            broker,
            epoch: words.number("epoch").map_or_else(|| self.epoch_of(broker), BrokerEpoch),
            changes: vec![change],
        }
    }
}

/// `NAME` in the cluster's namespace, or `NAMESPACE/NAME`.
fn key(cluster: &Cluster, text: &str) -> Key {
    text.split_once('/').map_or_else(
        || cluster.key(text),
        |(namespace, name)| Key::new(Some(namespace), Some(name)),
    )
}

fn broker(words: &mut EventArgs<'_>) -> BrokerId {
    BrokerId(words.next_number())
}

/// `of=TOPIC:0,1`.
fn partitions(words: &EventArgs<'_>) -> Option<(String, Vec<i32>)> {
    let (topic, partitions) = words.text("of")?.split_once(':').unwrap();
    Some((topic.to_owned(), partitions.split(',').map(|index| index.parse().unwrap()).collect()))
}

/// `set=name:value` pairs.
fn settings(words: &EventArgs<'_>) -> Vec<(String, String)> {
    let pairs = words.texts("set").into_iter();
    pairs
        .map(|pair| {
            pair.split_once(':').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap()
        })
        .collect()
}

fn registration(words: &mut EventArgs<'_>) -> Registration {
    let broker = broker(words);
    let id = |name: &str, default: u128| Uuid::from_u128(words.number(name).unwrap_or(default));
    Registration {
        cluster_id: words.text("cluster").unwrap_or("cluster").to_owned(),
        broker,
        incarnation: id("process", 1),
        log_dir: id("dir", 1000 + u128::from(broker.0.unsigned_abs())),
        endpoints: vec![endpoint("PLAINTEXT")],
        rack: words.text("rack").map(str::to_owned),
        previous_epoch: words.number("previous").map(BrokerEpoch),
        clean: words.flag("clean"),
        controller_epoch: ControllerEpoch(words.number("controller").unwrap_or(0)),
        leader_epochs: Vec::new(),
        is_certified: false,
    }
}

fn endpoint(listener: &str) -> Endpoint {
    Endpoint {
        listener: listener.into(),
        host: "127.0.0.1".into(),
        port: 9092,
        security_protocol: "PLAINTEXT".into(),
    }
}

fn resource(object: serde_json::Value) -> Resource {
    match object["kind"].as_str() {
        Some("Topic") => Resource::Topic(Box::new(serde_json::from_value(object).unwrap())),
        _ => Resource::Cluster(Box::new(serde_json::from_value(object).unwrap())),
    }
}
