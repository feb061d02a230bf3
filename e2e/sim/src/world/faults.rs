//! Faults and their repair: processes die and pause, power and disks fail, nodes are separated, the
//! lease moves.

use weir_operator::controller::{
    AdminRequest, DEFAULT_NAMESPACE, Event as ControllerEvent, Key, Kind, Resource,
};
use weir_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use weir_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use weir_protocol::messages::{AlterPartitionReassignmentsRequest, IncrementalAlterConfigsRequest};
use weir_protocol::types::TopicId;

use super::World;
use crate::broker::Machine;
use crate::ctx::{Alarm, Event, Fault, OperatorAlarm};
use crate::message::{Body, Node};
use crate::topics::topic_name;

/// The type of a topic among the resources with configurations (`ConfigResource.Type`).
const TOPIC: i8 = 2;

impl World {
    /// Causes a random fault.
    pub(super) fn fault(&mut self) {
        self.faulty = self.now < self.plan.faults_end_ms;
        if !self.faulty {
            return;
        }
        self.checks.counts.faults += 1;
        let pause = self.rng.between(20, self.plan.fault_pause_ms_max);
        self.schedule(self.now + pause, Event::Alarm(Alarm::Fault));
        let broker = self.rng.index(self.machines.len());
        if self.rng.chance(self.plan.destruction) {
            return self.destroy(broker);
        }
        if self.plan.reassignment > 0 && self.rng.chance(self.plan.reassignment) {
            return self.reassign();
        }
        if self.plan.deletion > 0 && self.rng.chance(self.plan.deletion) {
            return self.delete_records();
        }
        if self.plan.configuration > 0 && self.rng.chance(self.plan.configuration) {
            return self.change_min_isr();
        }
        if self.plan.renewal > 0 && self.rng.chance(self.plan.renewal) {
            return self.delete_topic();
        }
        if self.plan.outages > 0 && self.rng.chance(self.plan.outages) {
            return self.be_without_operators();
        }
        match self.rng.index(100) {
            0..25 => self.kill(broker),
            25..50 => self.cut_off(Node::Broker(broker)),
            50..65 => self.pause(Node::Broker(broker)),
            65..70 => self.stop_in_order(broker),
            // As when a cluster is deleted, or scaled away.
            70..73 => (0..self.machines.len()).for_each(|broker| self.stop_in_order(broker)),
            73..81 => {
                let operator = self.rng.index(2);
                self.cut_off(Node::Operator(operator));
            }
            81..86 => {
                let operator = self.lease;
                self.pause(Node::Operator(operator));
            }
            86..94 => self.move_lease(),
            _ => self.kill_operator(),
        }
    }

    fn repair_after(&mut self, at_most: u64, fault: Fault) {
        let at = self.now + self.rng.between(30, at_most);
        self.schedule(at, Event::Alarm(Alarm::Repair(fault)));
    }

    fn kill(&mut self, broker: usize) {
        if !self.machines[broker].is_up() {
            return;
        }
        self.note(|| format!("FAULT broker {broker} is killed"));
        self.broker(broker, Machine::kill);
        self.repair_after(2_500, Fault::Down(broker));
    }

    fn destroy(&mut self, first: usize) {
        let all = self.rng.chance(150);
        let wiped = self.rng.chance(300);
        let brokers: Vec<usize> =
            if all { (0..self.machines.len()).collect() } else { vec![first] };
        for broker in brokers {
            self.note(|| {
                format!(
                    "FAULT broker {broker} loses its {}",
                    if wiped && !all { "disk" } else { "power" }
                )
            });
            if wiped && !all {
                self.broker(broker, Machine::lose_disk);
            } else {
                self.broker(broker, Machine::lose_power);
            }
            self.checks.dirty.extend(0..self.plan.topics.len());
            self.repair_after(2_000, Fault::Down(broker));
        }
    }

    /// Requests other replicas for a partition, as many as it has, or cancels the reassignment.
    fn reassign(&mut self) {
        let partition = self.rng.index(self.plan.topics.len());
        let mut brokers: Vec<i32> = (0..self.machines.len() as i32).collect();
        let mut target = Vec::new();
        for _ in 0..self.plan.topics[partition].replicas {
            target.push(brokers.swap_remove(self.rng.index(brokers.len())));
        }
        let target = (!self.rng.chance(250)).then_some(target);
        self.note(|| format!("REASSIGN partition {partition} to {target:?}"));
        let topic = ReassignableTopic {
            name: topic_name(partition),
            partitions: vec![ReassignablePartition { partition_index: 0, replicas: target }],
        };
        self.administer(AdminRequest::AlterPartitionReassignments(
            AlterPartitionReassignmentsRequest {
                topics: vec![topic],
                ..AlterPartitionReassignmentsRequest::default()
            },
        ));
    }

    /// Changes `min.insync.replicas` of a topic.
    fn change_min_isr(&mut self) {
        let partition = self.rng.index(self.plan.topics.len());
        let value = self.rng.between(1, self.plan.topics[partition].replicas as u64);
        self.note(|| format!("CONFIGURE partition {partition}: min.insync.replicas={value}"));
        let config = AlterableConfig {
            name: "min.insync.replicas".to_owned(),
            config_operation: 0,
            value: Some(value.to_string()),
        };
        let resource = AlterConfigsResource {
            resource_type: TOPIC,
            resource_name: topic_name(partition),
            configs: vec![config],
        };
        self.administer(AdminRequest::IncrementalAlterConfigs(IncrementalAlterConfigsRequest {
            resources: vec![resource],
            ..IncrementalAlterConfigsRequest::default()
        }));
    }

    /// Deletes a topic; another of the same name follows soon.
    fn delete_topic(&mut self) {
        let partition = self.rng.index(self.plan.topics.len());
        let Some(topic) = self.store.topic(partition).filter(|_| !self.renewing[partition]) else {
            return;
        };
        self.renewing[partition] = true;
        self.note(|| format!("DELETE topic {partition}, which is {topic}"));
        let key = Key::new(Some(DEFAULT_NAMESPACE), Some(&topic_name(partition)));
        self.write_resource(ControllerEvent::Delete(Kind::Topic, key));
        self.repair_after(1_500, Fault::Deleted(partition, topic));
    }

    /// Writes the resource of the next topic of this name until its partition exists. The other
    /// operators also see what a deposed one wrote or deleted meanwhile.
    fn make_anew(&mut self, partition: usize, before: TopicId) {
        let there = self.store.topic(partition);
        if there == Some(before) {
            // No operator was there to delete it, or a paused one has the request.
            if self.now < self.plan.faults_end_ms + 6_000 {
                self.repair_after(1_500, Fault::Deleted(partition, before));
            }
            return;
        }
        if there.is_some() && self.checks.ledger(partition).topic() == there {
            self.checks.counts.renewals += 1;
            self.renewing[partition] = false;
            return;
        }
        let life = self.lives[partition] + u64::from(there.is_none());
        self.note(|| format!("CREATE topic {partition} in life {life}"));
        let resource = super::resource(&self.plan, partition, life);
        self.write_resource(ControllerEvent::Apply(vec![Resource::Topic(Box::new(resource))]));
        self.repair_after(600, Fault::Deleted(partition, before));
    }

    fn write_resource(&mut self, event: ControllerEvent) {
        self.operator(self.lease, |operator, store, ctx| {
            operator.write_resource(event, store, ctx);
            None
        });
    }

    fn administer(&mut self, request: AdminRequest) {
        self.operator(self.lease, |operator, store, ctx| {
            operator.administer(request, store, ctx);
            None
        });
    }

    /// Requests DeleteRecords: all committed records, or those before a committed offset.
    fn delete_records(&mut self) {
        let partition = self.rng.index(self.plan.topics.len());
        let committed = self.checks.ledger(partition).records().len() as u64;
        let before = (!self.rng.chance(300)).then(|| self.rng.between(0, committed) as i64);
        let leader = self.guess_leader(partition);
        self.note(|| format!("DELETE partition {partition} before {before:?}, at broker {leader}"));
        self.broker(leader, |machine, ctx| {
            if machine.is_up() {
                machine.receive(Node::Client(0), Body::Delete(partition, before), ctx);
            }
        });
    }

    fn stop_in_order(&mut self, broker: usize) {
        if !self.machines[broker].is_up() {
            return;
        }
        self.note(|| format!("FAULT broker {broker} is asked to stop"));
        self.machines[broker].shut_down();
        let run = self.machines[broker].run;
        self.schedule(self.now + 5_000, Event::Alarm(Alarm::Repair(Fault::Stopping(broker, run))));
    }

    /// Separates a node from all others or from some, in one direction or both.
    fn cut_off(&mut self, node: Node) {
        let brokers = (0..self.machines.len()).map(Node::Broker);
        let others: Vec<Node> =
            (0..2).map(Node::Operator).chain(brokers).filter(|other| *other != node).collect();
        let share = [300, 600, 1_000][self.rng.index(3)];
        let (deaf, dumb) =
            [(true, true), (true, true), (true, false), (false, true)][self.rng.index(4)];
        self.note(|| format!("FAULT {node:?} is cut off, deaf: {deaf}, dumb: {dumb}"));
        for other in others {
            if self.rng.chance(share) {
                if deaf {
                    self.network.cut(other, node);
                }
                if dumb {
                    self.network.cut(node, other);
                }
            }
        }
        self.repair_after(4_500, Fault::CutOff(node));
    }

    fn pause(&mut self, node: Node) {
        let until = self.now + self.rng.between(50, 4_500);
        self.note(|| format!("FAULT {node:?} pauses until {until}"));
        self.pauses.begin(node, until);
        self.schedule(until, Event::Alarm(Alarm::Repair(Fault::Paused(node))));
    }

    fn move_lease(&mut self) {
        let next = 1 - self.lease;
        if !self.operators[next].up {
            return;
        }
        self.note(|| format!("FAULT the lease moves to operator {next}"));
        let (loser, run) = (self.lease, self.operators[self.lease].run);
        self.lease = next;
        // Until then it continues in the belief that it is the controller.
        let learns = self.now + self.rng.between(100, 4_000);
        self.schedule(learns, Event::Alarm(Alarm::Operator(loser, run, OperatorAlarm::Lease)));
        self.lead(next);
    }

    fn kill_operator(&mut self) {
        let operator = self.rng.index(2);
        if !self.operators[operator].up {
            return;
        }
        self.note(|| format!("FAULT operator {operator} is killed"));
        self.operator(operator, |operator, _, ctx| {
            operator.die(ctx);
            None
        });
        self.repair_after(2_000, Fault::OperatorDown(operator));
        if self.rng.chance(500) {
            self.move_lease();
        }
    }

    /// Stops both operators for a while and restarts every broker meanwhile, one after the other or
    /// almost at once.
    fn be_without_operators(&mut self) {
        self.note(|| "FAULT all operators are killed, and every broker is restarted".to_owned());
        let away = self.rng.between(1_500, 5_000);
        for id in 0..2 {
            if self.operators[id].up {
                self.operator(id, |operator, _, ctx| {
                    operator.die(ctx);
                    None
                });
            }
            self.schedule(self.now + away, Event::Alarm(Alarm::Repair(Fault::OperatorDown(id))));
        }
        for broker in 0..self.machines.len() {
            let at = self.now + self.rng.between(10, away);
            self.schedule(at, Event::Alarm(Alarm::Repair(Fault::Restart(broker))));
        }
    }

    fn restart(&mut self, broker: usize) {
        if !self.machines[broker].is_up() {
            return;
        }
        if self.rng.chance(500) {
            self.note(|| format!("FAULT broker {broker} is stopped, and no operator is there"));
            self.broker(broker, Machine::stop_in_order);
        } else {
            self.note(|| format!("FAULT broker {broker} is killed, and no operator is there"));
            self.broker(broker, Machine::kill);
        }
        let at = self.now + self.rng.between(20, 600);
        self.schedule(at, Event::Alarm(Alarm::Repair(Fault::Down(broker))));
    }

    /// Repairs a fault.
    pub(super) fn repair(&mut self, fault: Fault) {
        match fault {
            Fault::Down(broker) if !self.machines[broker].is_up() => {
                self.broker(broker, Machine::start)
            }
            Fault::Stopping(broker, run)
                if self.machines[broker].run == run && self.machines[broker].is_up() =>
            {
                self.kill(broker)
            }
            Fault::Restart(broker) if self.faulty => self.restart(broker),
            Fault::Down(_) | Fault::Stopping(..) | Fault::Restart(_) => {}
            Fault::Deleted(partition, topic) => self.make_anew(partition, topic),
            Fault::CutOff(node) => self.network.join(node),
            Fault::Paused(node) => self.pauses.end(node, self.now),
            Fault::OperatorDown(operator) if !self.operators[operator].up => {
                self.operators[operator].up = true;
                if self.lease == operator {
                    self.lead(operator);
                }
            }
            Fault::OperatorDown(_) => {}
        }
    }

    /// Ends the faults: everything that is down returns.
    pub(super) fn heal(&mut self) {
        self.note(|| "the faults are over".to_owned());
        self.faulty = false;
        self.network.heal();
        self.pauses.end_all();
        for operator in 0..2 {
            self.repair(Fault::OperatorDown(operator));
        }
        if !self.operators[self.lease].is_running() {
            self.lead(self.lease);
        }
        for broker in 0..self.machines.len() {
            self.repair(Fault::Down(broker));
        }
        self.schedule(self.now + 1_000, Event::Alarm(Alarm::Look));
    }
}
