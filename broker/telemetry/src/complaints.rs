//! Log lines about what happens again and again, such as the connections of a wrong client: one of
//! a kind in a time, with the number of those that were left out.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The shortest time between two lines of a kind.
const INTERVAL: Duration = Duration::from_secs(10);

/// The lines of one place, by kind.
#[derive(Debug, Default)]
pub struct Complaints(Mutex<HashMap<&'static str, Said>>);

#[derive(Debug)]
struct Said {
    at: Instant,
    left_out: u64,
}

impl Complaints {
    /// Returns how many of this kind were left out since the last line, if it is time for one.
    pub fn are_due(&self, kind: &'static str) -> Option<u64> {
        self.are_due_at(kind, Instant::now())
    }

    fn are_due_at(&self, kind: &'static str, now: Instant) -> Option<u64> {
        let mut said = self.0.lock();
        match said.get_mut(kind) {
            Some(last) if now.duration_since(last.at) < INTERVAL => {
                last.left_out += 1;
                None
            }
            last => {
                let left_out = last.map_or(0, |last| last.left_out);
                said.insert(kind, Said { at: now, left_out: 0 });
                Some(left_out)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_kind_one_line_in_a_time() {
        let (complaints, start) = (Complaints::default(), Instant::now());
        assert_eq!(complaints.are_due_at("a", start), Some(0));
        assert_eq!(complaints.are_due_at("a", start), None);
        assert_eq!(complaints.are_due_at("a", start + INTERVAL / 2), None);
        assert_eq!(complaints.are_due_at("b", start), Some(0));
        assert_eq!(complaints.are_due_at("a", start + INTERVAL), Some(2));
        assert_eq!(complaints.are_due_at("a", start + 2 * INTERVAL), Some(0));
    }
}
