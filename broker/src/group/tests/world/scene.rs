//! A group coordinator and its clients, driven by the lines of a scenario.
//!
//! ```text
//! begin a:3 b:2 group.max.size=2                  a coordinator without state, in a cluster with these topics and settings
//! topics a:4                                      the cluster has these topics now
//! settings group.max.size=3                       and these settings
//! join [MEMBER] as=NAME topics=a,b                JoinGroup; a later response stands below the event that caused it
//! sync MEMBER GENERATION give=MEMBER:a-0,a-1      SyncGroup
//! heartbeat MEMBER GENERATION                     Heartbeat
//! leave MEMBER,MEMBER                             LeaveGroup
//! consumer MEMBER EPOCH topics=a owned=a-0        ConsumerGroupHeartbeat
//! commit [MEMBER GENERATION] a-0=7                OffsetCommit
//! commit-in-transaction PRODUCER [...] a-0=7      TxnOffsetCommit
//! end-transaction PRODUCER commit                 the transaction ends; or `abort`
//! fetch [MEMBER EPOCH] of=a-0,a-1 stable          OffsetFetch
//! delete-offsets a-0,a-1                          OffsetDelete
//! delete, list, describe, describe-consumers      of `group=`; `g` by default, as in all events
//! wait MS heartbeats=one:1 consumers=two:3        time passes; these members send a heartbeat every three seconds
//! fail-over                                       another broker takes over
//! compact                                         keeps the last record of each key, unless it is a tombstone
//! damage N                                        cuts the value of the last record but N to half
//! ```
//!
//! Below an event stand the names of new member ids, the responses, and the written records (`*
//! ...`). After each event the log is read, as another coordinator would read it.

use std::collections::BTreeMap;
use std::task::Poll;

use weir_protocol::messages::{
    ConsumerGroupHeartbeatRequest, HeartbeatRequest, JoinGroupResponse, SyncGroupResponse,
};
use weir_protocol::types::{ProducerEpoch, ProducerId};
use weir_scenario::EventArgs;
use weir_settings::Configs;

use super::names::Names;
use super::topics::{Topic, image};
use super::{Asked, World, records, requests, say};
use crate::coordinator::harness::Entry;
use crate::group::{Client, ConsumerHeartbeat, Group, Groups, Join, Kind, Request};

/// The interval of heartbeats while time passes.
const HEARD_OF_EVERY_MS: u64 = 3_000;

/// A request without a response so far.
struct Asker {
    /// The member's name from the event, or later from the response.
    name: Option<String>,
    /// Whether the name belongs to the id in the response.
    names: bool,
    waits: Waits,
}

enum Waits {
    Join(Asked<JoinGroupResponse>),
    Sync(Asked<SyncGroupResponse>),
}

enum Answer {
    Join(JoinGroupResponse),
    Sync(SyncGroupResponse),
}

/// The state of a scenario.
pub(in crate::group::tests) struct Scene {
    world: World,
    names: Names,
    askers: Vec<Asker>,
    /// The number of records that are printed.
    said: usize,
}

impl Scene {
    pub(in crate::group::tests) fn new() -> Self {
        Self::of(Configs::new(), &[])
    }

    fn of(configs: Configs, topics: &[Topic]) -> Self {
        Self {
            world: World::begin(super::settings(configs), image(topics)),
            names: Names::default(),
            askers: Vec::new(),
            said: 0,
        }
    }

    /// Plays an event, and returns its lines.
    pub(in crate::group::tests) fn play(&mut self, words: &mut EventArgs<'_>) -> Vec<String> {
        let mut lines = self.carry_out(words);
        let answers = self.answers();
        lines.extend(answers);
        let from = std::mem::replace(&mut self.said, self.world.log.len());
        lines.extend(
            self.world.log[from..].iter().filter_map(|entry| records::say(entry, &mut self.names)),
        );
        lines.splice(0..0, std::mem::take(&mut self.names.news));
        self.check_what_was_written();
        lines
    }

    /// Checks that another coordinator, which reads the log, has the same offsets and consumer
    /// groups.
    fn check_what_was_written(&self) {
        let (read, wrong) = self.world.read();
        let image = &self.world.image;
        let known = |machine: &Groups| -> BTreeMap<String, String> {
            let say = |group: &Group| {
                let consumers = match &group.kind {
                    Kind::Consumer(group) => Some((group.describe(image), group.written())),
                    Kind::Classic(_) => None,
                };
                (group.id.to_string(), format!("{:?} {consumers:?}", group.offsets))
            };
            let holds = |group: &&Group| {
                !group.offsets.is_empty() || matches!(group.kind, Kind::Consumer(_))
            };
            machine.groups.values().filter(holds).map(say).collect()
        };
        // The next coordinator detects damaged records.
        if wrong.is_empty() {
            assert_eq!(
                known(&self.world.machine),
                known(&read),
                "another coordinator would know something else"
            );
        }
    }

    /// Carries out an event, and returns the lines of immediate responses.
    fn carry_out(&mut self, words: &mut EventArgs<'_>) -> Vec<String> {
        match words.next() {
            "begin" => {
                let topics = requests::topics(words);
                *self = Self::of(requests::configs(words), &topics);
            }
            "topics" => {
                let topics = requests::topics(words);
                self.world.set_image(image(&topics));
            }
            "settings" => self.world.set_configs(super::settings(requests::configs(words))),
            "join" => self.join(words),
            "sync" => self.sync(words),
            "heartbeat" => {
                let request = requests::heartbeat(words, &self.names);
                return vec![self.heartbeat(request)];
            }
            "leave" => {
                let members = requests::leave(words, &self.names);
                let group = requests::group(words);
                let answer = self.world.ask(|to| Request::Leave { group, members, to }).expect();
                return say::leave(&answer, &mut self.names);
            }
            "consumer" => return vec![self.consumer(words)],
            "wait" => return self.wait(words),
            "fail-over" => return self.fail_over(),
            "compact" => self.compact(words),
            "damage" => return vec![self.damage(words)],
            verb => return self.offsets_and_groups(verb, words),
        }
        Vec::new()
    }

    fn offsets_and_groups(&mut self, verb: &str, words: &mut EventArgs<'_>) -> Vec<String> {
        match verb {
            "commit" => {
                let version = words.number("version").unwrap_or(9);
                let request = requests::commit(words, &self.names);
                vec![say::commit(
                    &self.world.ask(|to| Request::Commit { request, version, to }).expect(),
                )]
            }
            "commit-in-transaction" => {
                let producer = (ProducerId(words.next_number()), ProducerEpoch(0));
                let request = requests::commit(words, &self.names);
                let answer =
                    self.world.ask(|to| Request::CommitInTransaction { request, producer, to });
                vec![say::commit(&answer.expect())]
            }
            "end-transaction" => {
                let producer = ProducerId(words.next_number());
                let committed = match words.next() {
                    "commit" => true,
                    "abort" => false,
                    other => words.fail(&format!("{other:?} is no end")),
                };
                self.world.end_transaction(producer, ProducerEpoch(0), committed);
                Vec::new()
            }
            "fetch" => {
                let request = requests::fetch(words, &self.names);
                let require_stable = words.flag("stable");
                let answer = self.world.ask(|to| Request::Fetch { request, require_stable, to });
                vec![say::fetch(&answer.expect())]
            }
            "delete-offsets" => {
                let request = requests::delete_offsets(words);
                vec![say::delete_offsets(
                    &self.world.ask(|to| Request::DeleteOffsets { request, to }).expect(),
                )]
            }
            "delete" => {
                let group = requests::group(words);
                let (error, message) = self.world.ask(|to| Request::Delete { group, to }).expect();
                vec![message.map_or_else(
                    || error.name().to_owned(),
                    |message| format!("{}: {message}", error.name()),
                )]
            }
            "list" => {
                let (states, types) =
                    (requests::names_of(words, "states"), requests::names_of(words, "types"));
                let listed = self.world.ask(|to| Request::List { states, types, to }).expect();
                let group = |group: &weir_protocol::messages::list_groups_response::ListedGroup| {
                    let (kind, protocol_type) = (&group.group_type, &group.protocol_type);
                    format!("{} {} {kind} {protocol_type:?}", group.group_id, group.group_state)
                };
                match listed.is_empty() {
                    true => vec!["no groups".to_owned()],
                    false => listed.iter().map(group).collect(),
                }
            }
            "describe" => {
                let (group, version) =
                    (requests::group(words), words.number("version").unwrap_or(6));
                let answer = self.world.ask(|to| Request::Describe { group, version, to }).expect();
                say::describe(&answer, &mut self.names)
            }
            "describe-consumers" => {
                let group = requests::group(words);
                let answer = self.world.ask(|to| Request::DescribeConsumers { group, to }).expect();
                say::describe_consumers(&answer, &mut self.names)
            }
            verb => words.fail(&format!("there is no event {verb:?}")),
        }
    }

    fn join(&mut self, words: &mut EventArgs<'_>) {
        let client = requests::client(words, 3);
        let new = words.text("as").map(str::to_owned);
        let request = requests::join(words, &self.names);
        let known = Some(self.names.name(&request.member_id)).filter(|name| !name.is_empty());
        let asked = self.world.ask(|to| Request::Join(Join { client, request, to }));
        self.askers.push(Asker {
            names: new.is_some(),
            name: new.or(known),
            waits: Waits::Join(asked),
        });
    }

    fn sync(&mut self, words: &mut EventArgs<'_>) {
        let request = requests::sync(words, &self.names);
        let name = Some(self.names.name(&request.member_id));
        let asked = self.world.ask(|to| Request::Sync { request, to });
        self.askers.push(Asker { name, names: false, waits: Waits::Sync(asked) });
    }

    fn heartbeat(&mut self, request: HeartbeatRequest) -> String {
        let answer = self.world.ask(|to| Request::Heartbeat { request, to });
        answer.expect().name().to_owned()
    }

    fn consumer(&mut self, words: &mut EventArgs<'_>) -> String {
        let client = requests::client(words, 1);
        let request = requests::consumer(words, &self.names);
        let new = words.text("as");
        let asked = self
            .world
            .ask(|to| Request::ConsumerHeartbeat(ConsumerHeartbeat { client, request, to }));
        let answer = asked.expect();
        if let Some(id) = &answer.member_id {
            self.names.give(id, new);
        }
        say::consumer(&answer, &mut self.names)
    }

    /// The responses to waiting requests, in the order of the requests. Members whose ids they
    /// contain get their names first.
    fn answers(&mut self) -> Vec<String> {
        let mut answered = Vec::new();
        for mut asker in std::mem::take(&mut self.askers) {
            let answer = match &mut asker.waits {
                Waits::Join(asked) => asked.poll().map(|answer| answer.map(Answer::Join)),
                Waits::Sync(asked) => asked.poll().map(|answer| answer.map(Answer::Sync)),
            };
            let Poll::Ready(answer) = answer else {
                self.askers.push(asker);
                continue;
            };
            if let Some(Answer::Join(answer)) = &answer
                && !answer.member_id.is_empty()
            {
                self.names.give(&answer.member_id, asker.name.as_deref().filter(|_| asker.names));
                asker.name = Some(self.names.name(&answer.member_id));
            }
            answered.push((asker, answer));
        }
        let say = |(asker, answer): (Asker, Option<Answer>)| {
            let verb = if matches!(asker.waits, Waits::Join(_)) { "join" } else { "sync" };
            let said = match &answer {
                // The result for a request whose coordinator has gone.
                None => "NOT_COORDINATOR".to_owned(),
                Some(Answer::Join(answer)) => say::join(answer, &mut self.names),
                Some(Answer::Sync(answer)) => say::sync(answer),
            };
            let name = asker.name.map_or_else(String::new, |name| format!(" {name}"));
            format!("{verb}{name}: {said}")
        };
        answered.into_iter().map(say).collect()
    }

    fn wait(&mut self, words: &mut EventArgs<'_>) -> Vec<String> {
        let total: u64 = words.next_number();
        let classic = requests::heard_of(words, "heartbeats");
        let mut consumers = requests::heard_of(words, "consumers");
        let mut before: BTreeMap<String, String> = BTreeMap::new();
        let mut lines = Vec::new();
        let mut passed = 0;
        while passed < total {
            let step = HEARD_OF_EVERY_MS.min(total - passed);
            self.world.pass(step);
            passed += step;
            for (name, generation) in &classic {
                let answer = self.heartbeat(HeartbeatRequest {
                    group_id: "g".to_owned(),
                    member_id: self.names.id(name),
                    generation_id: *generation,
                    ..Default::default()
                });
                let known = before
                    .insert(name.clone(), answer.clone())
                    .unwrap_or_else(|| "NONE".to_owned());
                if known != answer {
                    lines.push(format!("after {passed} ms {name}: {answer}"));
                }
            }
            for (name, epoch) in &mut consumers {
                let client =
                    Client { id: "client".to_owned(), host: "/127.0.0.1".to_owned(), version: 1 };
                let request = ConsumerGroupHeartbeatRequest {
                    group_id: "g".to_owned(),
                    member_id: self.names.id(name),
                    member_epoch: *epoch,
                    rebalance_timeout_ms: -1,
                    ..Default::default()
                };
                let asked = self.world.ask(|to| {
                    Request::ConsumerHeartbeat(ConsumerHeartbeat { client, request, to })
                });
                let answer = asked.expect();
                let is_news = answer.error_code != 0
                    || answer.member_epoch != *epoch
                    || answer.assignment.is_some();
                let said = say::consumer(&answer, &mut self.names);
                if is_news && before.insert(name.clone(), said.clone()).as_ref() != Some(&said) {
                    lines.push(format!("after {passed} ms {name}: {said}"));
                }
                if answer.error_code == 0 {
                    *epoch = answer.member_epoch;
                }
            }
        }
        lines
    }

    fn fail_over(&mut self) -> Vec<String> {
        let wrong = self.world.take_over();
        wrong.into_iter().map(|wrong| format!("cannot be read: {wrong}")).collect()
    }

    fn compact(&mut self, words: &EventArgs<'_>) {
        let mut last = BTreeMap::new();
        for (at, entry) in self.world.log.iter().enumerate() {
            let Entry::Record(record, None) = entry else {
                words.fail("there are transactions in the log");
            };
            last.insert(record.key.clone(), at);
        }
        let mut at = 0;
        self.world.log.retain(|entry| {
            at += 1;
            matches!(entry, Entry::Record(record, _) if record.value.is_some() && last.get(&record.key) == Some(&(at - 1)))
        });
        self.said = self.world.log.len();
    }

    fn damage(&mut self, words: &mut EventArgs<'_>) -> String {
        let behind: usize = words.next_number();
        let at = self.world.log.len().checked_sub(behind + 1);
        let entry = at.and_then(|at| self.world.log.get_mut(at));
        let said = entry.as_deref().and_then(|entry| records::say(entry, &mut self.names));
        match (entry, said) {
            (Some(Entry::Record(record, _)), Some(said)) => {
                if let Some(value) = &mut record.value {
                    value.truncate(value.len() / 2);
                }
                format!("damaged {said}")
            }
            _ => words.fail("there is no such record"),
        }
    }
}
