//! A controller without a shell: state, sessions and a clock that the test moves. Events and outcomes are lines of text.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff;
use uuid::Uuid;
use weir_crds::KafkaCluster;
use weir_protocol::error::ErrorCode;
use weir_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use weir_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig};
use weir_protocol::messages::delete_topics_request::DeleteTopicState;
use weir_protocol::messages::{
    AlterConfigsRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, IncrementalAlterConfigsRequest, alter_configs_request,
    incremental_alter_configs_request,
};
use weir_protocol::types::{BrokerEpoch, BrokerId, ControllerEpoch};

use crate::controller::sessions::{Sessions, StreamId, Timestamp};
use crate::controller::state::{Broker, Change, Cluster, Endpoint, Partition, State};
use crate::controller::{AdminRequest, AdminResponse, Event, Heartbeat, Kind, Moment, Registration, Reply, Resource, decide};

/// The controller of a cluster called `test` with the id `cluster`.
pub(super) struct World {
    pub(super) state: State,
    pub(super) sessions: Sessions,
    pub(super) now: Timestamp,
    seed: u128,
    last: Vec<Change>,
}

impl World {
    pub(super) fn new() -> Self {
        let object = serde_json::json!({"apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster", "metadata": {"name": "test", "generation": 1}, "spec": {}});
        let resource: KafkaCluster = serde_json::from_value(object).unwrap();
        let cluster = Cluster {
            id: "cluster".to_owned(),
            controller_epoch: ControllerEpoch(1),
            next_broker_epoch: BrokerEpoch(0),
            next_producer_id: 0,
            resource: resource.into(),
        };
        Self {
            state: State::new(cluster),
            sessions: Sessions::default(),
            now: Timestamp(0),
            seed: 0,
            last: Vec::new(),
        }
    }

    /// Decides and applies; what came of it.
    pub(super) fn event(&mut self, event: Event) -> (Reply, Vec<Change>) {
        self.seed += 1 << 64;
        let moment = Moment {
            now: self.now,
            wall: Time(jiff::Timestamp::UNIX_EPOCH),
            seed: self.seed,
        };
        let outcome = decide(&self.state, &self.sessions, event, &moment);
        for change in &outcome.changes {
            self.state.apply(change);
        }
        self.last.clone_from(&outcome.changes);
        (outcome.reply, outcome.changes)
    }

    /// The changes of the last event.
    pub(super) fn last_changes(&self) -> Vec<Change> {
        self.last.clone()
    }

    /// Registers a broker as the shell does.
    pub(super) fn register(&mut self, registration: Registration) -> (Reply, Vec<Change>) {
        let broker = registration.broker;
        let outcome = self.event(Event::Register(registration));
        if matches!(outcome.0, Reply::Registered(_)) {
            self.sessions.opened(broker, StreamId(0), self.now, self.state.version);
        }
        outcome
    }

    /// Fences whose time is up, as the shell does.
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
        let before = self.state.clone();
        let mut words = Words::new(line);
        let (reply, changes) = match words.next() {
            "register" => {
                let registration = registration(&mut words);
                self.register(registration)
            }
            "heartbeat" => {
                let broker = words.broker();
                self.sessions.heard(broker, self.now);
                let epoch = words.number("epoch").map_or_else(|| self.epoch_of(broker), BrokerEpoch);
                let applied_version = if words.flag("behind") { 0 } else { self.state.version };
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
                self.sessions.broke(words.broker(), StreamId(0), self.now);
                self.last.clear();
                (Reply::Nothing, Vec::new())
            }
            "wait" => {
                self.now = self.now.plus(words.next().parse().unwrap());
                self.tick()
            }
            "producer-ids" => {
                let broker = words.broker();
                let epoch = words.number("epoch").map_or_else(|| self.epoch_of(broker), BrokerEpoch);
                self.event(Event::AllocateProducerIds { broker, epoch })
            }
            "apply" => {
                let objects = serde_json::from_str::<Vec<serde_json::Value>>(words.rest()).unwrap();
                self.event(Event::Apply(objects.into_iter().map(resource).collect()))
            }
            "delete-resource" => self.event(Event::Delete(Kind::Topic, words.next().to_owned())),
            verb => {
                let request = admin_request(verb, &mut words);
                let broker = BrokerId(0);
                self.event(Event::Admin {
                    broker,
                    epoch: self.epoch_of(broker),
                    request,
                })
            }
        };
        let mut lines = say_reply(&reply);
        lines.extend(changes.iter().map(|change| say_change(&before, &self.state, change)));
        lines
    }
}

/// The words of an event.
struct Words<'a> {
    line: &'a str,
    words: std::str::SplitWhitespace<'a>,
    pairs: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> Words<'a> {
    fn new(line: &'a str) -> Self {
        let mut pairs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for word in line.split_whitespace() {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            pairs.entry(key).or_default().push(value);
        }
        Self {
            line,
            words: line.split_whitespace(),
            pairs,
        }
    }

    fn next(&mut self) -> &'a str {
        self.words.next().unwrap()
    }

    fn rest(&self) -> &'a str {
        self.line.split_once(' ').unwrap().1
    }

    fn broker(&mut self) -> BrokerId {
        BrokerId(self.next().parse().unwrap())
    }

    fn flag(&self, name: &str) -> bool {
        self.pairs.contains_key(name)
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.pairs.get(name).map(|values| values[0])
    }

    fn number<T: std::str::FromStr<Err: std::fmt::Debug>>(&self, name: &str) -> Option<T> {
        self.text(name).map(|text| text.parse().unwrap())
    }

    /// `set=name:value` pairs.
    fn settings(&self) -> Vec<(String, String)> {
        let pairs = self.pairs.get("set").into_iter().flatten();
        pairs
            .map(|pair| pair.split_once(':').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap())
            .collect()
    }
}

fn registration(words: &mut Words<'_>) -> Registration {
    let broker = words.broker();
    let id = |name: &str, default: u128| Uuid::from_u128(words.number(name).unwrap_or(default));
    Registration {
        cluster_id: words.text("cluster").unwrap_or("cluster").to_owned(),
        broker,
        incarnation: id("process", 1),
        log_dir: id("dir", 1000 + u128::from(broker.0.unsigned_abs())),
        endpoints: vec![Endpoint {
            listener: "PLAINTEXT".into(),
            host: "127.0.0.1".into(),
            port: 9092,
            security_protocol: "PLAINTEXT".into(),
        }],
        rack: words.text("rack").map(str::to_owned),
        previous_epoch: words.number("previous").map(BrokerEpoch),
        clean: words.flag("clean"),
        controller_epoch: ControllerEpoch(words.number("controller").unwrap_or(0)),
    }
}

fn resource(object: serde_json::Value) -> Resource {
    match object["kind"].as_str() {
        Some("Topic") => Resource::Topic(Box::new(serde_json::from_value(object).unwrap())),
        _ => Resource::Cluster(Box::new(serde_json::from_value(object).unwrap())),
    }
}

fn admin_request(verb: &str, words: &mut Words<'_>) -> AdminRequest {
    let validate_only = words.flag("validate-only");
    match verb {
        "create" => {
            let assignments = words
                .pairs
                .get("on")
                .into_iter()
                .flatten()
                .zip(0..)
                .map(|(brokers, partition_index)| CreatableReplicaAssignment {
                    partition_index,
                    broker_ids: brokers.split(',').map(|id| id.parse().unwrap()).collect(),
                });
            let configs = words
                .settings()
                .into_iter()
                .map(|(name, value)| CreatableTopicConfig { name, value: Some(value) });
            let topic = CreatableTopic {
                num_partitions: words.number("partitions").unwrap_or(-1),
                replication_factor: words.number("replicas").unwrap_or(-1),
                assignments: assignments.collect(),
                configs: configs.collect(),
                ..Default::default()
            };
            let topics = words.next().split(',').map(|name| CreatableTopic {
                name: name.replace("''", ""),
                ..topic.clone()
            });
            AdminRequest::CreateTopics(CreateTopicsRequest {
                topics: topics.collect(),
                validate_only,
                ..Default::default()
            })
        }
        "delete" => {
            let topics = words.next().split(',').map(|name| DeleteTopicState {
                name: Some(name.to_owned()),
                ..Default::default()
            });
            AdminRequest::DeleteTopics(DeleteTopicsRequest {
                topics: topics.collect(),
                ..Default::default()
            })
        }
        "grow" => {
            let (name, count) = (words.next().to_owned(), words.next().parse().unwrap());
            let topic = CreatePartitionsTopic {
                name,
                count,
                assignments: None,
            };
            AdminRequest::CreatePartitions(CreatePartitionsRequest {
                topics: vec![topic],
                validate_only,
                ..Default::default()
            })
        }
        "replace" => {
            let (resource_type, resource_name) = target(words);
            let configs = words
                .settings()
                .into_iter()
                .map(|(name, value)| alter_configs_request::AlterableConfig { name, value: Some(value) });
            let resource = alter_configs_request::AlterConfigsResource {
                resource_type,
                resource_name,
                configs: configs.collect(),
            };
            AdminRequest::AlterConfigs(AlterConfigsRequest {
                resources: vec![resource],
                validate_only,
            })
        }
        "alter" => {
            let (resource_type, resource_name) = target(words);
            let operations = [("set", 0), ("unset", 1), ("append", 2), ("subtract", 3)];
            let configs = operations.iter().flat_map(|(word, config_operation)| {
                words.pairs.get(word).into_iter().flatten().map(|pair| {
                    let (name, value) = pair.split_once(':').unwrap_or((pair, ""));
                    let (name, value) = (name.to_owned(), (*word != "unset").then(|| value.to_owned()));
                    incremental_alter_configs_request::AlterableConfig {
                        name,
                        config_operation: *config_operation,
                        value,
                    }
                })
            });
            let configs = configs.collect();
            let resource = incremental_alter_configs_request::AlterConfigsResource {
                resource_type,
                resource_name,
                configs,
            };
            AdminRequest::IncrementalAlterConfigs(IncrementalAlterConfigsRequest {
                resources: vec![resource],
                validate_only,
            })
        }
        other => panic!("there is no event {other:?}"),
    }
}

/// `topic NAME`, `broker ID`, or `brokers` for all of them.
fn target(words: &mut Words<'_>) -> (i8, String) {
    match words.next() {
        "topic" => (2, words.next().to_owned()),
        "broker" => (4, words.next().to_owned()),
        "brokers" => (4, String::new()),
        other => (other.parse().unwrap(), "x".to_owned()),
    }
}

fn say_reply(reply: &Reply) -> Vec<String> {
    let say = |code: i16, message: &Option<String>| {
        let name = ErrorCode::from_code(code).name();
        message.as_ref().map_or_else(|| name.to_owned(), |message| format!("{name}: {message}"))
    };
    match reply {
        Reply::Nothing => Vec::new(),
        Reply::Registered(epoch) => vec![format!("registered, epoch {epoch}")],
        Reply::Heartbeat { fenced, may_shut_down } => vec![format!("fenced={fenced} may_shut_down={may_shut_down}")],
        Reply::ProducerIds(first) => vec![format!("producer ids from {first}")],
        Reply::Refused(code, reason) => vec![format!("refused, {}: {reason}", code.name())],
        Reply::Applied(verbs) => vec![verbs.join(", ")],
        Reply::Invalid(refusal) => vec![format!("refused, {refusal}")],
        Reply::Admin(response) => match response {
            AdminResponse::CreateTopics(response) => response
                .topics
                .iter()
                .map(|topic| {
                    let outcome = say(topic.error_code, &topic.error_message);
                    format!(
                        "{:?} {outcome}, {} x {}",
                        shortened(&topic.name),
                        topic.num_partitions,
                        topic.replication_factor
                    )
                })
                .collect(),
            AdminResponse::DeleteTopics(response) => response
                .responses
                .iter()
                .map(|topic| say(topic.error_code, &topic.error_message))
                .collect(),
            AdminResponse::CreatePartitions(response) => response.results.iter().map(|topic| say(topic.error_code, &topic.error_message)).collect(),
            AdminResponse::AlterConfigs(response) => response
                .responses
                .iter()
                .map(|resource| say(resource.error_code, &resource.error_message))
                .collect(),
            AdminResponse::IncrementalAlterConfigs(response) => response
                .responses
                .iter()
                .map(|resource| say(resource.error_code, &resource.error_message))
                .collect(),
        },
    }
}

fn shortened(name: &str) -> String {
    name.chars().take(20).collect()
}

fn say_change(before: &State, after: &State, change: &Change) -> String {
    let name = |id| {
        after
            .topics
            .get(id)
            .or_else(|| before.topics.get(id))
            .map_or_else(String::new, |topic| topic.name().to_owned())
    };
    match change {
        Change::Cluster(resource) => {
            let brokers = serde_json::to_string(&resource.spec.brokers.config).unwrap();
            format!("* cluster {} brokers {brokers}", serde_json::to_string(&resource.spec.config).unwrap())
        }
        Change::ControllerEpoch(epoch) => format!("* controller epoch {epoch}"),
        Change::NextBrokerEpoch(epoch) => format!("* next broker epoch {epoch}"),
        Change::NextProducerId(id) => format!("* next producer id {id}"),
        Change::Broker(Broker {
            id,
            epoch,
            fenced,
            shutting_down,
            ..
        }) => {
            format!(
                "* broker {id} epoch={epoch}{}{}",
                if *fenced { " fenced" } else { "" },
                if *shutting_down { " shutting down" } else { "" }
            )
        }
        Change::Topic(_, resource) => {
            let spec = &resource.spec;
            let (count, replicas) = (spec.partitions.unwrap_or(-1), spec.replicas.unwrap_or(-1));
            let config = serde_json::to_string(&spec.config).unwrap();
            let generation = resource.metadata.generation.unwrap_or(-1);
            format!("* topic {} {count} x {replicas} generation {generation} {config}", resource.topic_name())
        }
        Change::RemoveTopic(id, _) => format!("* no topic {}", name(id)),
        Change::Partition(id, index, partition) => {
            let Partition {
                replicas,
                isr,
                elr,
                leader,
                leader_epoch,
                partition_epoch,
                last_known_leader,
            } = partition;
            let ids = |ids: &[BrokerId]| ids.iter().map(|id| id.0.to_string()).collect::<Vec<_>>().join(",");
            let last = last_known_leader.map_or_else(String::new, |last| format!(" last known leader {last}"));
            let leader = leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string());
            let elr = if elr.is_empty() { String::new() } else { format!(" elr [{}]", ids(elr)) };
            format!(
                "* partition {}-{index} [{}] isr [{}]{elr} leader {leader} epochs {leader_epoch}/{partition_epoch}{last}",
                name(id),
                ids(replicas),
                ids(isr)
            )
        }
    }
}
