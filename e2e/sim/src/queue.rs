//! A queue of events in the order of their time, and of their coming where that is the same.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The queue. Events stay where they are while it is put in order: they are larger than what orders
/// them.
#[derive(Debug)]
pub struct Queue<E> {
    /// The time, the number in the order of coming, and the place.
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
