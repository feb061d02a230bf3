//! The end of transactions: a coordinator asks leaders for markers until all are written, and
//! leaders write them.

use weir_broker::sim_api::{Answer, Ask, Marker};
use weir_protocol::error::ErrorCode;

use super::{Around, Core, Process, Task, To, send};
use crate::transactions::message::{Body, Leader, Role};
use crate::transactions::plan::Mutation;
use crate::transactions::replica::Entry;

impl Process {
    /// Runs periodic work: due timeouts and markers.
    pub fn tick(&mut self, cx: &mut Around<'_>) {
        let Core::Coordinator(core) = &mut self.core else { return };
        if !self.loaded || cx.plan.has(Mutation::NeverMarks) {
            return;
        }
        if core.next_wake().is_some_and(|at| at <= cx.now) {
            let records = core.wake(cx.now);
            self.log.extend(records.into_iter().map(Entry::Record));
        }
        // The core returns only transactions whose end is committed.
        if self.high_watermark >= self.log.len()
            && let (_, Answer::Prepared(all, exhausted)) = core.ask("", Ask::Prepared, cx.now)
        {
            for id in exhausted.into_iter().filter(|_| !cx.plan.has(Mutation::NeverRenews)) {
                let fresh = cx.fresh_id();
                let (records, _) = core.ask(&id, Ask::TimeOut { fresh }, cx.now);
                self.log.extend(records.into_iter().map(Entry::Record));
            }
            for prepared in all {
                if self.tasks.values().all(|task| task.prepared.marker != prepared.marker) {
                    self.numbers += 1;
                    let task = Task {
                        missing: prepared.partitions.iter().map(Role::of).collect(),
                        prepared,
                        given_up: false,
                    };
                    self.tasks.insert(self.numbers, task);
                }
            }
        }
        let written: Vec<u64> = self
            .tasks
            .iter()
            .filter(|(_, task)| task.missing.is_empty())
            .map(|(number, _)| *number)
            .collect();
        for number in written {
            if let Some(task) = self.tasks.remove(&number) {
                let (records, _) = core.ask("", Ask::Written(task.prepared), cx.now);
                self.log.extend(records.into_iter().map(Entry::Record));
            }
        }
        for (number, task) in self.tasks.iter().filter(|(_, task)| !task.given_up) {
            for role in &task.missing {
                send(To::Role(*role), Body::Mark(self.leader, *number, task.prepared.marker), cx);
            }
        }
    }

    /// Handles the answer to a marker, as `transaction_io::markers` does.
    pub(super) fn marked(&mut self, number: u64, role: Role, code: ErrorCode, cx: &Around<'_>) {
        let Some(task) = self.tasks.get_mut(&number) else { return };
        match code {
            ErrorCode::None if cx.plan.has(Mutation::CompletesEarly) => task.missing.clear(),
            ErrorCode::None => drop(task.missing.remove(&role)),
            ErrorCode::InvalidProducerEpoch | ErrorCode::TransactionCoordinatorFenced => {
                task.given_up = true
            }
            _ => {}
        }
    }

    pub(super) fn mark(
        &mut self,
        coordinator: Leader,
        task: u64,
        mut marker: Marker,
        cx: &mut Around<'_>,
    ) {
        let role = self.leader.0;
        let to = To::Leader(coordinator);
        if !self.loaded {
            return send(to, Body::Marked(task, role, ErrorCode::NotLeaderOrFollower), cx);
        }
        if role == Role::Offsets && cx.plan.has(Mutation::CommitsOffsetsAlways) {
            marker.commit = true;
        }
        let epoch = self.leader.1;
        let admitted = match &mut self.core {
            Core::Data(replica) if cx.plan.has(Mutation::TakesLateMarkers) => {
                replica.force(marker, epoch, cx.now);
                Ok(())
            }
            Core::Data(replica) => replica.end_transaction(marker, epoch, cx.now),
            Core::Offsets(core) => {
                core.end(marker, cx.now).map(|()| self.log.push(Entry::Marker(marker)))
            }
            Core::Coordinator(_) => Err(ErrorCode::UnknownTopicOrPartition),
        };
        match admitted {
            Ok(()) => self.owe(to, Body::Marked(task, role, ErrorCode::None), cx),
            Err(code) => send(to, Body::Marked(task, role, code), cx),
        }
    }
}
