//! The access of a node to the world while it acts: it sends messages, sets alarms and writes to
//! the trace.

use weir_protocol::types::TopicId;

use crate::checks::Checks;
use crate::message::{Body, Node, Stream};
use crate::network::Network;
use crate::plan::Plan;
use crate::rng::Rng;
use crate::topics::partition_of;

/// Why an operator wakes.
#[derive(Clone, Copy, Debug)]
pub enum OperatorAlarm {
    /// A session may have timed out.
    Sessions,
    /// The next object must be written.
    Write,
    /// The state must be loaded.
    Load,
    /// The lease was not renewed. An operator that has lost it stops, unless a failed commit has
    /// stopped it before.
    Lease,
}

/// Why a broker wakes; the numbers are partitions and calls.
#[derive(Clone, Copy, Debug)]
pub enum BrokerAlarm {
    /// It looks for a controller.
    Connect,
    /// It found none: it adopts the roles of the previous process.
    Resume,
    /// A heartbeat is due.
    Beat,
    /// The next fetch is due.
    Fetch(usize),
    /// A fetch has timed out.
    FetchTimeout(usize, u64),
    /// The leadership checks its timeouts.
    Check(usize),
    /// A flush ends.
    Flush(usize),
    /// A call to the controller has timed out.
    CallTimeout(usize, u64),
    /// The logs are closed.
    Closed,
}

/// A fault that will be repaired.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// A broker is down.
    Down(usize),
    /// A broker was asked to stop in order; if it still runs, it is killed.
    Stopping(usize, u64),
    /// A node is cut off from others.
    CutOff(Node),
    /// A node is paused.
    Paused(Node),
    /// An operator is down.
    OperatorDown(usize),
    /// A topic is deleted, and its name can be used again.
    Deleted(usize, TopicId),
    /// The turn of a broker to be restarted.
    Restart(usize),
}

/// An event at a set time.
#[derive(Clone, Copy, Debug)]
pub enum Alarm {
    /// For an operator's process: its number and its run.
    Operator(usize, u64, OperatorAlarm),
    /// For a broker's process: its number and its run.
    Broker(usize, u64, BrokerAlarm),
    /// For a client.
    Client(usize),
    /// A fault begins.
    Fault,
    /// A fault is repaired.
    Repair(Fault),
    /// The faults end.
    Heal,
    /// The world checks whether it has converged.
    Look,
}

#[derive(Debug)]
pub(crate) enum Event {
    Arrives(Node, Node, Body),
    Alarm(Alarm),
}

/// The access of a node to the world while it acts.
#[derive(Debug)]
pub struct Ctx<'a> {
    /// The time.
    pub now: u64,
    /// The source of randomness.
    pub rng: &'a mut Rng,
    /// The plan.
    pub plan: &'a Plan,
    /// The checks.
    pub checks: &'a mut Checks,
    /// The operator that holds the lease.
    pub lease: usize,
    /// Whether faults still happen.
    pub faulty: bool,
    /// The acting broker stopped in order.
    pub stopped: bool,
    pub(crate) network: &'a mut Network,
    pub(crate) out: &'a mut Vec<(u64, Event)>,
    pub(crate) trace: &'a mut Option<Vec<String>>,
    /// The acting broker and its run.
    pub(crate) actor: (usize, u64),
}

impl Ctx<'_> {
    /// Sends a message, which may be lost.
    pub fn send(&mut self, from: Node, to: Node, body: Body) {
        let [first, again] = self.network.send(self.now, from, to, self.rng, self.plan);
        if let Some(at) = again {
            self.out.push((at, Event::Arrives(from, to, body.clone())));
        }
        if let Some(at) = first {
            self.out.push((at, Event::Arrives(from, to, body)));
        }
    }

    /// Sends a message on a stream.
    pub fn send_on(&mut self, stream: Stream, from: Node, to: Node, body: Body) {
        let ends = matches!(body, Body::Ended(..) | Body::Closed(_));
        if let Some(at) = self.network.send_on(stream, self.now, from, to, self.rng, self.plan) {
            self.out.push((at, Event::Arrives(from, to, body)));
        }
        if ends {
            self.network.end(stream);
        }
    }

    /// Sets an alarm.
    pub fn alarm(&mut self, at: u64, alarm: Alarm) {
        self.out.push((at, Event::Alarm(alarm)));
    }

    /// Sets an alarm of the acting broker.
    pub fn broker_alarm(&mut self, after: u64, alarm: BrokerAlarm) {
        let (broker, run) = self.actor;
        self.alarm(self.now + after, Alarm::Broker(broker, run, alarm));
    }

    /// Writes a line to the trace, if the history has one.
    pub fn trace(&mut self, line: impl FnOnce() -> String) {
        if let Some(lines) = self.trace {
            lines.push(format!("{:>6} {}", self.now, line()));
        }
    }

    /// The number of a topic's partition in this history.
    pub fn partition_of(&self, topic: TopicId) -> Option<usize> {
        partition_of(topic).filter(|partition| *partition < self.plan.topics.len())
    }
}
