//! The serial executor of a partition's writer: exclusive access to the writer, and the queue of
//! jobs for it.
//!
//! A partition has one writer and no thread or task of its own. A thread that wants to write queues
//! its job. If the executor holds the writer, the thread takes it, runs queued jobs, its own
//! included, and puts the writer back. So jobs that wait together are written together. The lock is
//! held for a push or a swap, never across I/O.
//!
//! Other threads may queue jobs as fast as one thread runs them, and the other tasks of that thread
//! wait meanwhile. So a thread puts the writer back after [`TURN_JOBS_MAX`] jobs. If jobs are left,
//! it spawns a task that runs them ([`run_backlog_later`]). A thread that queues another job before
//! the task runs takes the writer instead. Jobs run in the order in which they were queued.

use std::collections::VecDeque;
use std::fmt;

use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Handle;

/// How many jobs a thread runs before it leaves the executor. They make one large write, and
/// leaving costs little beside them.
pub(crate) const TURN_JOBS_MAX: usize = 64;

/// The serial executor of a writer `W` that runs jobs `J`.
pub(crate) struct SerialExecutor<W, J> {
    inner: Mutex<Inner<W, J>>,
}

struct Inner<W, J> {
    writer: Option<Box<W>>,
    waiting: VecDeque<J>,
    broken: bool,
}

/// Whether a thread left jobs in the queue when it left the executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "jobs that are left wait until somebody brings another one"]
pub(crate) enum Backlog {
    /// The queue is empty, or another thread has the writer.
    Nothing,
    /// The caller must see to it that [`SerialExecutor::run_backlog`] is called.
    Jobs,
}

/// Spawns a task on this thread's runtime that takes turns until no job is left. A thread without a
/// runtime has no tasks that wait for it, so it takes the turns itself.
///
/// The task is not awaited. A panic in it breaks the executor, as a panic of a caller of
/// [`SerialExecutor::submit`] does. If the runtime ends first, the next caller of
/// [`SerialExecutor::submit`] runs the jobs.
pub(crate) fn run_backlog_later(mut turn: impl FnMut() -> Backlog + Send + 'static) {
    let Ok(runtime) = Handle::try_current() else {
        while turn() == Backlog::Jobs {}
        return;
    };
    drop(runtime.spawn(async move {
        while turn() == Backlog::Jobs {
            tokio::task::yield_now().await;
        }
    }));
}

/// The executor is broken: a job panicked, and the state of the writer cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Poisoned;

impl<W, J> SerialExecutor<W, J> {
    /// An executor that holds its writer.
    pub(crate) fn new(writer: W) -> Self {
        Self {
            inner: Mutex::new(Inner {
                writer: Some(Box::new(writer)),
                waiting: VecDeque::new(),
                broken: false,
            }),
        }
    }

    /// Removes the writer for good, if the executor holds it. Queued jobs are dropped, and later
    /// ones are refused.
    pub(crate) fn take(&self) -> Option<W> {
        let mut inner = self.inner.lock();
        let writer = inner.writer.take()?;
        inner.broken = true;
        let waiting = std::mem::take(&mut inner.waiting);
        drop(inner);
        drop(waiting);
        Some(*writer)
    }

    /// Queues a job. If the executor holds the writer, this thread runs queued jobs in their order,
    /// [`TURN_JOBS_MAX`] at most. Else the thread that has the writer runs them.
    ///
    /// `work` gets the writer and jobs that are queued at that moment, at least one. It may be
    /// called several times.
    ///
    /// # Errors
    /// [`Poisoned`] when the executor is broken; the job is dropped.
    pub(crate) fn submit(
        &self,
        job: J,
        work: impl FnMut(&mut W, Vec<J>),
    ) -> Result<Backlog, Poisoned> {
        let mut inner = self.inner.lock();
        if inner.broken {
            return Err(Poisoned);
        }
        inner.waiting.push_back(job);
        Ok(self.take_a_turn(inner, work))
    }

    /// Takes another turn, for the remaining jobs.
    pub(crate) fn run_backlog(&self, work: impl FnMut(&mut W, Vec<J>)) -> Backlog {
        self.take_a_turn(self.inner.lock(), work)
    }

    fn take_a_turn<'a>(
        &'a self,
        mut inner: MutexGuard<'a, Inner<W, J>>,
        mut work: impl FnMut(&mut W, Vec<J>),
    ) -> Backlog {
        let Some(writer) = inner.writer.take() else { return Backlog::Nothing };
        let mut sitting = Guard { executor: self, writer: Some(writer) };
        let mut room = TURN_JOBS_MAX;
        loop {
            let count = inner.waiting.len().min(room);
            if count == 0 {
                inner.writer = sitting.writer.take();
                return if inner.waiting.is_empty() { Backlog::Nothing } else { Backlog::Jobs };
            }
            room -= count;
            let jobs: Vec<J> = inner.waiting.drain(..count).collect();
            drop(inner);
            if let Some(writer) = &mut sitting.writer {
                work(writer, jobs);
            }
            inner = self.inner.lock();
        }
    }
}

/// Marks the executor as broken if a job panics. The queued jobs are dropped, and with them the
/// senders of their answers.
struct Guard<'a, W, J> {
    executor: &'a SerialExecutor<W, J>,
    writer: Option<Box<W>>,
}

impl<W, J> Drop for Guard<'_, W, J> {
    fn drop(&mut self) {
        if self.writer.is_some() {
            let mut inner = self.executor.inner.lock();
            inner.broken = true;
            let waiting = std::mem::take(&mut inner.waiting);
            drop(inner);
            drop(waiting);
        }
    }
}

impl<W, J> fmt::Debug for SerialExecutor<W, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner.lock();
        f.debug_struct("SerialExecutor")
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
        let executor = Arc::new(SerialExecutor::<Vec<usize>, usize>::new(Vec::new()));
        let calls = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let (executor, calls) = (Arc::clone(&executor), Arc::clone(&calls));
                std::thread::spawn(move || {
                    for job in 0..1000 {
                        let mut work = |written: &mut Vec<usize>, jobs: Vec<usize>| {
                            calls.fetch_add(1, Ordering::Relaxed);
                            written.extend(jobs);
                        };
                        let mut left = executor.submit(thread * 1000 + job, &mut work).unwrap();
                        while left == Backlog::Jobs {
                            left = executor.run_backlog(&mut work);
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let written = *executor.inner.lock().writer.take().unwrap();
        assert_eq!(written.len(), 8000);
        for thread in 0..8 {
            let own: Vec<_> = written.iter().filter(|&&job| job / 1000 == thread).collect();
            assert!(own.len() == 1000 && own.is_sorted(), "a thread's jobs keep their order");
        }
        assert!(calls.load(Ordering::Relaxed) <= 8000);
    }

    /// While the first thread works, others queue as many jobs as it runs.
    #[test]
    fn whoever_sits_there_leaves_after_some_jobs() {
        let executor = SerialExecutor::<Vec<usize>, usize>::new(Vec::new());
        let brought = AtomicUsize::new(1);
        let bring = || {
            let job = brought.fetch_add(1, Ordering::Relaxed);
            assert_eq!(
                executor.submit(job, |_, _| panic!("the executor is taken")),
                Ok(Backlog::Nothing)
            );
        };
        let mut turns = 0;
        let mut done = 0;
        let mut left = executor.submit(0, |written, jobs| {
            done += jobs.len();
            assert!(done <= TURN_JOBS_MAX, "it works for others without end");
            jobs.iter().for_each(|_| bring());
            // One more, so that the queue grows.
            bring();
            written.extend(jobs);
        });
        assert_eq!((left, done), (Ok(Backlog::Jobs), TURN_JOBS_MAX));
        while left == Ok(Backlog::Jobs) {
            left = Ok(executor.run_backlog(|written, jobs| {
                assert!(jobs.len() <= TURN_JOBS_MAX);
                written.extend(jobs);
            }));
            turns += 1;
        }
        assert!(turns > 0);
        let written = executor.take().unwrap();
        assert_eq!(written, (0..brought.into_inner()).collect::<Vec<_>>(), "in order, each once");
    }

    #[test]
    fn who_waits_when_the_writer_goes_hears_of_it() {
        let executor = SerialExecutor::<(), Arc<()>>::new(());
        let job = Arc::new(());
        let left = executor.submit(Arc::default(), |(), jobs| {
            for _ in 0..=jobs.len() * TURN_JOBS_MAX {
                assert_eq!(executor.submit(Arc::clone(&job), |(), _| ()), Ok(Backlog::Nothing));
            }
        });
        assert_eq!(left, Ok(Backlog::Jobs));
        assert!(executor.take().is_some());
        assert_eq!(Arc::strong_count(&job), 1);
        assert_eq!(executor.run_backlog(|(), _| ()), Backlog::Nothing);
        assert_eq!(executor.submit(job, |(), _| ()), Err(Poisoned));
    }

    #[test]
    fn a_panic_breaks_the_seat_and_nothing_else() {
        let executor = SerialExecutor::<(), u8>::new(());
        let work = std::panic::AssertUnwindSafe(|| executor.submit(1, |(), _| panic!("a bug")));
        assert!(std::panic::catch_unwind(work).is_err());
        assert_eq!(executor.submit(2, |(), _| ()), Err(Poisoned));
    }
}
