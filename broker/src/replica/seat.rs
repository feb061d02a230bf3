//! The seat of a partition's writer: exclusive access to the writer, and the queue of jobs for it.
//!
//! A partition has one writer and no thread or task of its own. A thread that wants to write queues
//! its job. If the seat holds the writer, the thread takes it, runs every queued job, its own
//! included, and puts the writer back. So jobs that wait together are written together. The lock is
//! held for a push or a swap, never across I/O.

use std::fmt;

use parking_lot::Mutex;

/// The seat of a writer `W` that runs jobs `J`.
pub(crate) struct Seat<W, J> {
    inner: Mutex<Inner<W, J>>,
}

struct Inner<W, J> {
    writer: Option<Box<W>>,
    waiting: Vec<J>,
    broken: bool,
}

/// The seat is broken: a job panicked, and the state of the writer cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

impl<W, J> Seat<W, J> {
    /// A seat that holds its writer.
    pub(crate) fn new(writer: W) -> Self {
        Self {
            inner: Mutex::new(Inner {
                writer: Some(Box::new(writer)),
                waiting: Vec::new(),
                broken: false,
            }),
        }
    }

    /// Removes the writer for good, if the seat holds it. Later jobs are refused.
    pub(crate) fn take(&self) -> Option<W> {
        let mut inner = self.inner.lock();
        let writer = inner.writer.take()?;
        inner.broken = true;
        Some(*writer)
    }

    /// Queues a job. If the seat holds the writer, this thread runs all queued jobs in their order.
    /// Else the thread that has the writer runs them.
    ///
    /// `work` gets the writer and every job queued at that moment, at least one. It may be called
    /// several times.
    ///
    /// # Errors
    /// [`Broken`] when the seat is broken; the job is dropped.
    pub(crate) fn bring(&self, job: J, mut work: impl FnMut(&mut W, Vec<J>)) -> Result<(), Broken> {
        let mut inner = self.inner.lock();
        if inner.broken {
            return Err(Broken);
        }
        inner.waiting.push(job);
        let Some(writer) = inner.writer.take() else { return Ok(()) };
        let mut sitting = Sitting { seat: self, writer: Some(writer) };
        loop {
            let jobs = std::mem::take(&mut inner.waiting);
            if jobs.is_empty() {
                inner.writer = sitting.writer.take();
                return Ok(());
            }
            drop(inner);
            if let Some(writer) = &mut sitting.writer {
                work(writer, jobs);
            }
            inner = self.inner.lock();
        }
    }
}

/// Marks the seat as broken if a job panics. The queued jobs are dropped, and with them the senders
/// of their answers.
struct Sitting<'a, W, J> {
    seat: &'a Seat<W, J>,
    writer: Option<Box<W>>,
}

impl<W, J> Drop for Sitting<'_, W, J> {
    fn drop(&mut self) {
        if self.writer.is_some() {
            let mut inner = self.seat.inner.lock();
            inner.broken = true;
            inner.waiting.clear();
        }
    }
}

impl<W, J> fmt::Debug for Seat<W, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner.lock();
        f.debug_struct("Seat")
            .field("taken", &inner.writer.is_none())
            .field("waiting", &inner.waiting.len())
            .field("broken", &inner.broken)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn every_job_is_done_once_by_one_writer_at_a_time() {
        let seat = Arc::new(Seat::<Vec<usize>, usize>::new(Vec::new()));
        let calls = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let (seat, calls) = (Arc::clone(&seat), Arc::clone(&calls));
                std::thread::spawn(move || {
                    for job in 0..1000 {
                        seat.bring(thread * 1000 + job, |written, jobs| {
                            calls.fetch_add(1, Ordering::Relaxed);
                            written.extend(jobs);
                        })
                        .unwrap();
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let written = *seat.inner.lock().writer.take().unwrap();
        assert_eq!(written.len(), 8000);
        for thread in 0..8 {
            let own: Vec<_> = written.iter().filter(|&&job| job / 1000 == thread).collect();
            assert!(own.len() == 1000 && own.is_sorted(), "a thread's jobs keep their order");
        }
        assert!(calls.load(Ordering::Relaxed) <= 8000);
    }

    #[test]
    fn a_panic_breaks_the_seat_and_nothing_else() {
        let seat = Seat::<(), u8>::new(());
        let work = std::panic::AssertUnwindSafe(|| seat.bring(1, |(), _| panic!("a bug")));
        assert!(std::panic::catch_unwind(work).is_err());
        assert_eq!(seat.bring(2, |(), _| ()), Err(Broken));
    }
}
