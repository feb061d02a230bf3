//! Paused nodes, as when their machine is frozen. Events for them wait, and are delivered later in
//! the order of their arrival.
//!
//! So a stream keeps its order even when the pause ends early and more events arrive at once.

use std::collections::VecDeque;

use crate::message::Node;

/// The paused nodes and the events that wait.
#[derive(Debug)]
pub struct Pauses<E> {
    paused: Vec<Pause<E>>,
    /// Events that waited for nodes whose pause is over.
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
    /// Pauses a node until `until`. For a paused node the new time replaces the old one.
    pub fn begin(&mut self, node: Node, until: u64) {
        match self.paused.iter_mut().find(|pause| pause.node == node) {
            Some(pause) => pause.until = until,
            None => self.paused.push(Pause { node, until, held: Vec::new() }),
        }
    }

    /// Holds an event for a paused node, or returns it.
    pub fn hold(&mut self, node: Node, event: E) -> Option<E> {
        let Some(pause) = self.paused.iter_mut().find(|pause| pause.node == node) else {
            return Some(event);
        };
        pause.held.push(event);
        None
    }

    /// Ends a node's pause if its time is up.
    pub fn end(&mut self, node: Node, now: u64) {
        if let Some(index) =
            self.paused.iter().position(|pause| pause.node == node && pause.until <= now)
        {
            self.released.extend(self.paused.swap_remove(index).held);
        }
    }

    /// Ends all pauses.
    pub fn end_all(&mut self) {
        self.released.extend(self.paused.drain(..).flat_map(|pause| pause.held));
    }

    /// The oldest event of a node whose pause is over. It comes before any other event.
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
        // A longer pause: the end of the first one has no effect.
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
