//! A machine under test: requests in, replies and records out, at the times of the test. Another
//! machine can read its log, as a new coordinator does.

mod compacted;

use std::sync::Arc;
use std::task::Poll;

use futures::FutureExt;
use tokio::sync::oneshot::Receiver;
use weir_protocol::types::{LeaderEpoch, ProducerEpoch, ProducerId};
use weir_settings::{Configs, Layers};

use super::state_machine::Commit;
use super::{Logged, Now, Origin, Outcome, Record, ReplyTo, StateMachine};
use crate::metadata::MetadataImage;

/// The reply to a request, which may not be there yet.
#[derive(Debug)]
pub(crate) struct Asked<T>(Receiver<(T, Option<Commit>)>);

impl<T> Asked<T> {
    pub(crate) fn answer(&mut self) -> Option<T> {
        match self.poll() {
            Poll::Ready(answer) => answer,
            Poll::Pending => None,
        }
    }

    /// The reply, if it is there; `Ready(None)` when it was dropped.
    pub(crate) fn poll(&mut self) -> Poll<Option<T>> {
        match (&mut self.0).now_or_never() {
            Some(answer) => Poll::Ready(answer.ok().map(|(answer, _)| answer)),
            None => Poll::Pending,
        }
    }

    pub(crate) fn expect(mut self) -> T {
        self.answer().expect("an answer")
    }
}

/// An entry of the log.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    /// A record, and the transaction that it belongs to.
    Record(Record, Option<(ProducerId, ProducerEpoch)>),
    /// The end of a producer's transaction, and whether it was committed.
    End(ProducerId, ProducerEpoch, bool),
}

/// A machine in a test. Both clocks show the same time.
pub(crate) struct Harness<M: StateMachine> {
    pub(crate) machine: M,
    pub(crate) now_ms: u64,
    /// Everything that was written.
    pub(crate) log: Vec<Entry>,
    epoch: LeaderEpoch,
    configs: Configs,
    pub(crate) image: Arc<MetadataImage>,
    shared: M::Shared,
}

impl<M: StateMachine> Harness<M> {
    /// A machine without any state, in leader epoch 0.
    pub(crate) fn begin(configs: Configs, image: MetadataImage) -> Self {
        Self::begin_with(configs, image, M::Shared::default())
    }

    /// Like [`Harness::begin`], with state that other machines share.
    pub(crate) fn begin_with(configs: Configs, image: MetadataImage, shared: M::Shared) -> Self {
        let mut harness = Self {
            machine: M::new(origin(LeaderEpoch(0)), &shared),
            shared,
            now_ms: 1_000_000,
            log: Vec::new(),
            epoch: LeaderEpoch(0),
            configs,
            image: Arc::new(image),
        };
        harness.metadata();
        harness
    }

    /// Replaces the metadata.
    pub(crate) fn set_image(&mut self, image: MetadataImage) {
        self.image = Arc::new(image);
        self.metadata();
    }

    /// Replaces the settings.
    pub(crate) fn set_configs(&mut self, configs: Configs) {
        self.configs = configs;
        self.metadata();
    }

    /// Gives the metadata to a machine that was just loaded, and discards its records.
    fn tell(&self, machine: &mut M) {
        let layers = Layers { cluster: Some(&self.configs), ..Layers::default() };
        let now = Now { ms: self.now_ms, wall_ms: self.now_ms as i64 };
        machine.metadata(&self.image, &layers, now, &mut Outcome::default());
    }

    fn metadata(&mut self) {
        let (image, configs) = (Arc::clone(&self.image), self.configs.clone());
        let layers = Layers { cluster: Some(&configs), ..Layers::default() };
        self.run(|machine, now, outcome| machine.metadata(&image, &layers, now, outcome));
    }

    /// Runs `act` on the machine, and adds its records to the log.
    pub(crate) fn run(&mut self, act: impl FnOnce(&mut M, Now, &mut Outcome)) {
        let now = Now { ms: self.now_ms, wall_ms: self.now_ms as i64 };
        let mut outcome = Outcome::default();
        act(&mut self.machine, now, &mut outcome);
        let transaction = outcome.transaction;
        self.log
            .extend(outcome.records.into_iter().map(|record| Entry::Record(record, transaction)));
        for reply in outcome.replies {
            reply.send(None);
        }
    }

    pub(crate) fn ask<T: Send + 'static>(
        &mut self,
        make: impl FnOnce(ReplyTo<T>) -> M::Request,
    ) -> Asked<T> {
        let (to, answer) = ReplyTo::new();
        let request = make(to);
        self.run(|machine, now, outcome| machine.decide(request, now, outcome));
        Asked(answer)
    }

    /// Lets time pass, and runs the timers that become due at their times.
    pub(crate) fn pass(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while let Some(at) = self.machine.next_wake().filter(|at| *at <= end) {
            self.now_ms = at.max(self.now_ms);
            self.run(|machine, now, outcome| machine.wake(now, outcome));
        }
        self.now_ms = end;
    }

    /// Ends a producer's transaction.
    pub(crate) fn end_transaction(
        &mut self,
        producer: ProducerId,
        epoch: ProducerEpoch,
        committed: bool,
    ) {
        self.log.push(Entry::End(producer, epoch, committed));
        self.machine.end_transaction(producer, epoch, committed);
    }

    /// Another broker takes over in the next leader epoch, with the state in the log alone.
    pub(crate) fn fail_over(&mut self) {
        assert_eq!(self.take_over(), [""; 0]);
    }

    /// Like [`Harness::fail_over`], for a log with damaged records; returns their errors.
    pub(crate) fn take_over(&mut self) -> Vec<String> {
        self.epoch = LeaderEpoch(self.epoch.0 + 1);
        let (machine, wrong) = self.read();
        self.machine = machine;
        self.metadata();
        wrong
    }

    /// A machine that has read the log, and the errors of unreadable records.
    pub(crate) fn read(&self) -> (M, Vec<String>) {
        let mut machine = M::new(origin(self.epoch), &self.shared);
        let mut wrong = Vec::new();
        for entry in &self.log {
            match entry {
                Entry::Record(record, transaction) => {
                    let logged = Logged {
                        key: &record.key,
                        value: record.value.as_deref(),
                        transaction: *transaction,
                    };
                    wrong.extend(machine.replay(&logged).err());
                }
                Entry::End(producer, epoch, committed) => {
                    machine.end_transaction(*producer, *epoch, *committed)
                }
            }
        }
        (machine, wrong)
    }
}

fn origin(epoch: LeaderEpoch) -> Origin {
    Origin { partition: 0, epoch, seed: 1 + epoch.0 as u128 }
}
