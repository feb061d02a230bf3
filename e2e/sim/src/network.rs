//! The network: it loses, repeats and delays, and parts nodes from each other. A stream keeps its
//! order until something on it is lost; then it is broken.

use std::collections::{BTreeMap, BTreeSet};

use crate::message::{Node, Stream};
use crate::plan::Plan;
use crate::rng::Rng;

/// The state of the network.
#[derive(Debug, Default)]
pub struct Network {
    /// Who is not heard by whom.
    cut: BTreeSet<(Node, Node)>,
    broken: BTreeSet<Stream>,
    /// When the last message of a stream arrives, by stream and listener.
    arrivals: BTreeMap<(Stream, Node), u64>,
    healed: bool,
}

impl Network {
    /// Nothing is lost, repeated or late any more.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.healed = true;
    }

    /// One node is not heard by another.
    pub fn cut(&mut self, from: Node, to: Node) {
        self.cut.insert((from, to));
    }

    /// Whoever could not hear a node, or was not heard by it, can again.
    pub fn join(&mut self, node: Node) {
        self.cut.retain(|(from, to)| *from != node && *to != node);
    }

    /// A stream is over.
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

    /// When a message arrives: never, once, or twice.
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

    /// When a message on a stream arrives; `None`: the stream is broken.
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
