//! A queue of events, ordered by their time and then by insertion.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The queue. The heap orders only small keys, and the events stay in place, because they are
/// larger.
#[derive(Debug)]
pub struct Queue<E> {
    /// The time, the number of the insertion, and the place.
    order: BinaryHeap<Reverse<(u64, u64, usize)>>,
    places: Vec<Option<E>>,
    free: Vec<usize>,
    pushed: u64,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self { order: BinaryHeap::new(), places: Vec::new(), free: Vec::new(), pushed: 0 }
    }
}

impl<E> Queue<E> {
    /// Adds an event at its time.
    pub fn push(&mut self, at: u64, event: E) {
        let place = self.free.pop().unwrap_or(self.places.len());
        if place == self.places.len() {
            self.places.push(None);
        }
        self.places[place] = Some(event);
        self.pushed += 1;
        self.order.push(Reverse((at, self.pushed, place)));
    }

    /// Takes the next event, with its time.
    pub fn pop(&mut self) -> Option<(u64, E)> {
        let Reverse((at, _, place)) = self.order.pop()?;
        self.free.push(place);
        Some((at, self.places[place].take()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_their_time_and_then_of_their_coming() {
        let mut queue = Queue::default();
        for (at, event) in [(5, 'c'), (1, 'a'), (5, 'd'), (1, 'b')] {
            queue.push(at, event);
        }
        assert_eq!(queue.pop(), Some((1, 'a')));
        queue.push(1, 'e');
        let rest: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(rest, [(1, 'b'), (1, 'e'), (5, 'c'), (5, 'd')]);
    }
}
