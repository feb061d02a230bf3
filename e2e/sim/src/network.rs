//! The network loses, repeats and delays messages, and separates nodes. A stream keeps its order
//! until a message on it is lost; then it is broken.

use std::collections::{BTreeMap, BTreeSet};

use crate::message::{Node, Stream};
use crate::plan::Plan;
use crate::rng::Rng;

/// The state of the network.
#[derive(Debug, Default)]
pub struct Network {
    /// The pairs of nodes whose messages are lost, from sender to receiver.
    cut: BTreeSet<(Node, Node)>,
    broken: BTreeSet<Stream>,
    /// The arrival of the last message of a stream, by stream and receiver.
    arrivals: BTreeMap<(Stream, Node), u64>,
    healed: bool,
}

impl Network {
    /// From now on nothing is lost, repeated or delayed.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.healed = true;
    }

    /// One node no longer receives another's messages.
    pub fn cut(&mut self, from: Node, to: Node) {
        self.cut.insert((from, to));
    }

    /// Reconnects a node with all others.
    pub fn join(&mut self, node: Node) {
        self.cut.retain(|(from, to)| *from != node && *to != node);
    }

    /// Ends a stream.
    pub fn end(&mut self, stream: Stream) {
        self.broken.insert(stream);
    }

    fn is_cut(&self, from: Node, to: Node) -> bool {
        self.cut.contains(&(from, to))
    }

    fn delay(&self, rng: &mut Rng, plan: &Plan) -> u64 {
        if self.healed {
            return rng.between(1, 3);
        }
        if rng.chance(plan.slow) {
            let most = if rng.chance(150) { 3_000 } else { 200 };
            return rng.between(5, most);
        }
        rng.between(1, 4)
    }

    /// The arrival times of a message: none, one, or two.
    pub fn send(
        &self,
        now: u64,
        from: Node,
        to: Node,
        rng: &mut Rng,
        plan: &Plan,
    ) -> [Option<u64>; 2] {
        if self.is_cut(from, to) || (!self.healed && rng.chance(plan.loss)) {
            return [None, None];
        }
        let first = now + self.delay(rng, plan);
        let again = (!self.healed && rng.chance(plan.loss)).then(|| now + self.delay(rng, plan));
        [Some(first), again]
    }

    /// The arrival time of a message on a stream; `None` if the stream is broken.
    pub fn send_on(
        &mut self,
        stream: Stream,
        now: u64,
        from: Node,
        to: Node,
        rng: &mut Rng,
        plan: &Plan,
    ) -> Option<u64> {
        if self.broken.contains(&stream) {
            return None;
        }
        if self.is_cut(from, to) || (!self.healed && rng.chance(plan.loss / 10)) {
            self.broken.insert(stream);
            return None;
        }
        let takes = if self.healed { 1 } else { rng.between(1, 3) };
        let arrival = self.arrivals.entry((stream, to)).or_default();
        *arrival = (*arrival).max(now + takes);
        if !self.healed && rng.chance(plan.slow / 3) {
            *arrival += rng.between(5, 400);
        }
        Some(*arrival)
    }
}
