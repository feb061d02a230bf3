//! What a node may do to the world while it acts: say something, set an alarm, write a line of the
//! trace.

use weir_protocol::types::TopicId;

use crate::checks::Checks;
use crate::message::{Body, Node, Stream};
use crate::network::Network;
use crate::plan::Plan;
use crate::rng::Rng;
use crate::topics::partition_of;

/// What an operator wakes for.
#[derive(Clone, Copy, Debug)]
pub enum OperatorAlarm {
    /// A session may have ended.
    Sessions,
    /// The next object is to be written.
    Write,
    /// The state is to be loaded.
    Load,
    /// The lease was not renewed: whoever has lost it stops, if its commits have not told it
    /// before.
    Lease,
}

/// What a broker wakes for; the numbers are partitions and calls.
#[derive(Clone, Copy, Debug)]
pub enum BrokerAlarm {
    /// A controller is to be found.
    Connect,
    /// None was found: what the process before had is taken up.
    Resume,
    /// A heartbeat is due.
    Beat,
    /// The next fetch is due.
    Fetch(usize),
    /// A fetch was not answered.
    FetchTimeout(usize, u64),
    /// The leadership wants to look at the time.
    Check(usize),
    /// A flush ends.
    Flush(usize),
    /// A call to the controller was not answered.
    CallTimeout(usize, u64),
}

/// Something that went wrong and will be put right.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// A broker is down.
    Down(usize),
    /// A broker wanted to stop in order; if it is still there, it is killed.
    Stopping(usize, u64),
    /// A node is cut off.
    CutOff(Node),
    /// A node does nothing.
    Paused(Node),
    /// An operator is down.
    OperatorDown(usize),
    /// A topic is deleted, and its name is to be had again.
    Deleted(usize, TopicId),
    /// A broker's turn has come to be restarted.
    Restart(usize),
}

/// What goes off at its time.
#[derive(Clone, Copy, Debug)]
pub enum Alarm {
    /// Of an operator's process: its number, its run.
    Operator(usize, u64, OperatorAlarm),
    /// Of a broker's process: its number, its run.
    Broker(usize, u64, BrokerAlarm),
    /// Of a client.
    Client(usize),
    /// Something goes wrong.
    Fault,
    /// Something is put right.
    Repair(Fault),
    /// The faults are over.
    Heal,
    /// Is all well?
    Look,
}

#[derive(Debug)]
pub(crate) enum Event {
    Arrives(Node, Node, Body),
    Alarm(Alarm),
}

/// What a node may do to the world while it acts.
#[derive(Debug)]
pub struct Ctx<'a> {
    /// The time.
    pub now: u64,
    /// Chance.
    pub rng: &'a mut Rng,
    /// The plan.
    pub plan: &'a Plan,
    /// The checkers.
    pub checks: &'a mut Checks,
    /// Which operator has the lease.
    pub lease: usize,
    /// Whether faults still happen.
    pub faulty: bool,
    /// The broker that acts stopped in order.
    pub stopped: bool,
    pub(crate) network: &'a mut Network,
    pub(crate) out: &'a mut Vec<(u64, Event)>,
    pub(crate) trace: &'a mut Option<Vec<String>>,
    /// The broker that acts, and its run.
    pub(crate) actor: (usize, u64),
}

impl Ctx<'_> {
    /// Says something, whether or not it is heard.
    pub fn send(&mut self, from: Node, to: Node, body: Body) {
        let [first, again] = self.network.send(self.now, from, to, self.rng, self.plan);
        if let Some(at) = again {
            self.out.push((at, Event::Arrives(from, to, body.clone())));
        }
        if let Some(at) = first {
            self.out.push((at, Event::Arrives(from, to, body)));
        }
    }

    /// Says something on a stream.
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

    /// Sets an alarm of the broker that acts.
    pub fn broker_alarm(&mut self, after: u64, alarm: BrokerAlarm) {
        let (broker, run) = self.actor;
        self.alarm(self.now + after, Alarm::Broker(broker, run, alarm));
    }

    /// Writes a line of the trace, if there is one.
    pub fn trace(&mut self, line: impl FnOnce() -> String) {
        if let Some(lines) = self.trace {
            lines.push(format!("{:>6} {}", self.now, line()));
        }
    }

    /// The number of a topic's partition here.
    pub fn partition_of(&self, topic: TopicId) -> Option<usize> {
        partition_of(topic).filter(|partition| *partition < self.plan.topics.len())
    }
}
