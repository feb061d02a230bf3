//! Outcomes in the form of scenario lines.

use weir_crds::DeletionPolicy;
use weir_protocol::error::ErrorCode;
use weir_protocol::types::BrokerId;

use crate::controller::state::{Broker, Change, Partition, State};
use crate::controller::{AdminResponse, IsrChanged, Reply};

pub(super) fn say_reply(reply: &Reply) -> Vec<String> {
    let say = |code: i16, message: &Option<String>| {
        let name = ErrorCode::from_code(code).name();
        message.as_ref().map_or_else(|| name.to_owned(), |message| format!("{name}: {message}"))
    };
    match reply {
        Reply::Nothing => Vec::new(),
        Reply::Registered(epoch) => vec![format!("registered, epoch {epoch}")],
        Reply::Heartbeat { fenced, may_shut_down } => {
            vec![format!("fenced={fenced} may_shut_down={may_shut_down}")]
        }
        Reply::AlteredPartitions(results) => {
            let say = |changed: &IsrChanged| {
                changed
                    .result
                    .as_ref()
                    .map_or_else(|code| code.name().to_owned(), |_| "NONE".to_owned())
            };
            results.iter().map(say).collect()
        }
        Reply::Balanced { more } => vec![format!("balanced, more={more}")],
        Reply::ProducerIds(first) => vec![format!("producer ids from {first}")],
        Reply::Refused(code, reason) => vec![format!("refused, {}: {reason}", code.name())],
        Reply::Applied(verbs) => vec![verbs.join(", ")],
        Reply::Invalid(refusal) => vec![format!("refused, {refusal}")],
        Reply::AllInvalid(refusals) => {
            refusals.iter().map(|refusal| format!("refused, {refusal}")).collect()
        }
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
            AdminResponse::CreatePartitions(response) => response
                .results
                .iter()
                .map(|topic| say(topic.error_code, &topic.error_message))
                .collect(),
            AdminResponse::ElectLeaders(response) => {
                let top = (response.error_code != 0).then(|| say(response.error_code, &None));
                let results = response.replica_election_results.iter().flat_map(|topic| {
                    topic.partition_result.iter().map(|partition| {
                        format!(
                            "{}-{} {}",
                            topic.topic,
                            partition.partition_id,
                            say(partition.error_code, &partition.error_message)
                        )
                    })
                });
                top.into_iter().chain(results).collect()
            }
            AdminResponse::AlterPartitionReassignments(response) => response
                .responses
                .iter()
                .flat_map(|topic| &topic.partitions)
                .map(|partition| say(partition.error_code, &partition.error_message))
                .collect(),
            AdminResponse::ListPartitionReassignments(response) => response
                .topics
                .iter()
                .flat_map(|topic| {
                    topic.partitions.iter().map(|partition| {
                        let (index, replicas) = (partition.partition_index, &partition.replicas);
                        format!(
                            "{}-{index} {replicas:?} adding {:?} removing {:?}",
                            topic.name, partition.adding_replicas, partition.removing_replicas
                        )
                    })
                })
                .collect(),
            AdminResponse::UnregisterBroker(response) => {
                vec![say(response.error_code, &response.error_message)]
            }
            AdminResponse::UpdateFeatures(response) => {
                vec![say(response.error_code, &response.error_message)]
            }
            AdminResponse::DescribeQuorum(response) => vec![format!("{response:?}")],
            AdminResponse::AlterUserScramCredentials(response) => response
                .results
                .iter()
                .map(|user| say(user.error_code, &user.error_message))
                .collect(),
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

pub(super) fn say_change(before: &State, after: &State, change: &Change) -> String {
    let name = |id| {
        after
            .topics
            .get(id)
            .or_else(|| before.topics.get(id))
            .map_or_else(String::new, |topic| topic.name().to_owned())
    };
    match change {
        Change::Cluster(resource) => {
            let spec = &resource.spec;
            let brokers = serde_json::to_string(&spec.brokers.config).unwrap();
            let mut said = format!(
                "* cluster {} brokers {brokers}",
                serde_json::to_string(&spec.config).unwrap()
            );
            if !spec.consumer_groups.config.is_empty() {
                said += &format!(
                    " groups {}",
                    serde_json::to_string(&spec.consumer_groups.config).unwrap()
                );
            }
            if !spec.client_metrics.is_empty() {
                said += &format!(
                    " client metrics {}",
                    serde_json::to_string(&spec.client_metrics).unwrap()
                );
            }
            said
        }
        Change::ControllerEpoch(epoch) => format!("* controller epoch {epoch}"),
        Change::NextBrokerEpoch(epoch) => format!("* next broker epoch {epoch}"),
        Change::NextProducerId(id) => format!("* next producer id {id}"),
        Change::UncleanElection(id, index) => format!("* unclean election {}-{index}", name(id)),
        Change::RolledBack => "* the state is an old one".to_owned(),
        Change::TookUpCluster(object) => format!("* took up the cluster {}", object.generation),
        Change::TookUpTopic(key, _) => format!("* took up the topic {key}"),
        Change::RemoveBroker(id) => format!("* no broker {id}"),
        Change::ScramMockKey(_) => "* the mock key".to_owned(),
        Change::ScramCredential(change) => {
            let what = if change.credential.is_some() { "sets" } else { "deletes" };
            format!("* {what} {} of {}", change.mechanism, change.user)
        }
        Change::Features(features) => {
            format!("* features epoch {} {:?}", features.epoch, features.levels)
        }
        Change::Broker(Broker { id, epoch, fenced, shutting_down, endpoints, .. }) => {
            // Each registration names this one.
            let listeners: Vec<_> = endpoints.iter().map(|at| at.listener.as_str()).collect();
            let others = listeners != ["PLAINTEXT"];
            format!(
                "* broker {id} epoch={epoch}{}{}{}",
                if *fenced { " fenced" } else { "" },
                if *shutting_down { " shutting down" } else { "" },
                if others { format!(" at {}", listeners.join(",")) } else { String::new() }
            )
        }
        Change::Topic(_, resource) => {
            let spec = &resource.spec;
            let (count, replicas) = (spec.partitions.unwrap_or(-1), spec.replicas.unwrap_or(-1));
            let config = serde_json::to_string(&spec.config).unwrap();
            let generation = resource.metadata.generation.unwrap_or(-1);
            let key = after.cluster.key_of(&resource.metadata);
            let of = if key.namespace == after.cluster.namespace() {
                String::new()
            } else {
                format!(" of {key}")
            };
            let retained =
                if spec.deletion_policy == DeletionPolicy::Retain { " retained" } else { "" };
            format!(
                "* topic {}{of} {count} x {replicas} generation {generation}{retained} {config}",
                resource.topic_name()
            )
        }
        Change::RemoveTopic(id, _) => format!("* no topic {}", name(id)),
        Change::Partition(id, index, partition) => {
            let Partition {
                replicas,
                isr,
                elr,
                adding,
                removing,
                leader,
                leader_epoch,
                partition_epoch,
                last_known_leader,
                recovering,
            } = partition;
            let ids = |ids: &[BrokerId]| {
                ids.iter().map(|id| id.0.to_string()).collect::<Vec<_>>().join(",")
            };
            let last = last_known_leader
                .map_or_else(String::new, |last| format!(" last known leader {last}"));
            let leader = leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string());
            let some = |name: &str, list: &[BrokerId]| {
                if list.is_empty() { String::new() } else { format!(" {name} [{}]", ids(list)) }
            };
            let (elr, adding, removing) =
                (some("elr", elr), some("adding", adding), some("removing", removing));
            let recovering = if *recovering { " recovering" } else { "" };
            format!(
                "* partition {}-{index} [{}]{adding}{removing} isr [{}]{elr} leader {leader} epochs {leader_epoch}/{partition_epoch}{last}{recovering}",
                name(id),
                ids(replicas),
                ids(isr)
            )
        }
    }
}
