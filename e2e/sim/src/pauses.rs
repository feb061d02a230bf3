//! Nodes that do nothing for a while, as when their machine is frozen. What comes for them waits,
//! and is taken up in the order in which it came.
//!
//! So a stream keeps its order, also when the pause ends early and more comes at once.

use std::collections::VecDeque;

use crate::message::Node;

/// Who is paused, and what waits.
#[derive(Debug)]
pub struct Pauses<E> {
    paused: Vec<Pause<E>>,
    /// What waited for nodes whose pause is over.
    released: VecDeque<E>,
}

#[derive(Debug)]
struct Pause<E> {
    node: Node,
    until: u64,
    held: Vec<E>,
}

impl<E> Default for Pauses<E> {
    fn default() -> Self {
        Self { paused: Vec::new(), released: VecDeque::new() }
    }
}

impl<E> Pauses<E> {
    /// A node does nothing until then. It may do nothing already: then the new time counts.
    pub fn begin(&mut self, node: Node, until: u64) {
        match self.paused.iter_mut().find(|pause| pause.node == node) {
            Some(pause) => pause.until = until,
            None => self.paused.push(Pause { node, until, held: Vec::new() }),
        }
    }

    /// Keeps what comes for a node if it is paused, else gives it back.
    pub fn hold(&mut self, node: Node, event: E) -> Option<E> {
        let Some(pause) = self.paused.iter_mut().find(|pause| pause.node == node) else {
            return Some(event);
        };
        pause.held.push(event);
        None
    }

    /// Ends a node's pause if its time has come.
    pub fn end(&mut self, node: Node, now: u64) {
        if let Some(index) =
            self.paused.iter().position(|pause| pause.node == node && pause.until <= now)
        {
            self.released.extend(self.paused.swap_remove(index).held);
        }
    }

    /// Ends all.
    pub fn end_all(&mut self) {
        self.released.extend(self.paused.drain(..).flat_map(|pause| pause.held));
    }

    /// What waited longest for a node whose pause is over. It comes before whatever happens next.
    pub fn pop(&mut self) -> Option<E> {
        self.released.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn released(pauses: &mut Pauses<char>) -> Vec<char> {
        std::iter::from_fn(|| pauses.pop()).collect()
    }

    #[test]
    fn what_comes_for_a_paused_node_waits_in_its_order() {
        let (node, other) = (Node::Broker(1), Node::Broker(2));
        let mut pauses = Pauses::default();
        assert_eq!(pauses.hold(node, 'a'), Some('a'));
        pauses.begin(node, 100);
        assert_eq!((pauses.hold(node, 'b'), pauses.hold(other, 'c')), (None, Some('c')));
        // A longer pause: the end of the first one changes nothing.
        pauses.begin(node, 200);
        pauses.end(node, 100);
        assert_eq!((pauses.hold(node, 'd'), pauses.pop()), (None, None));
        pauses.end(node, 200);
        assert_eq!((released(&mut pauses), pauses.hold(node, 'e')), (vec!['b', 'd'], Some('e')));
    }

    #[test]
    fn a_pause_that_ends_early_lets_nothing_overtake() {
        let node = Node::Operator(0);
        let mut pauses = Pauses::default();
        pauses.begin(node, 100);
        assert_eq!(pauses.hold(node, 'a'), None);
        pauses.begin(node, 50);
        assert_eq!(pauses.hold(node, 'b'), None);
        pauses.end(node, 50);
        assert_eq!(released(&mut pauses), ['a', 'b']);
        pauses.begin(node, 300);
        assert_eq!(pauses.hold(node, 'c'), None);
        pauses.end_all();
        assert_eq!((released(&mut pauses), pauses.hold(node, 'd')), (vec!['c'], Some('d')));
    }
}
