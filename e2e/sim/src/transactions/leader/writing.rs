//! Writes in transactions: the leader asks the coordinator whether the transaction is open, and
//! appends.

use weir_broker::sim_api::{Ask, Guard};
use weir_protocol::error::ErrorCode;

use super::{Around, Core, Process, Question, RETRY_MS, To, refuse, send};
use crate::transactions::message::{Asker, Body, Reply, Role, What, Write, id};
use crate::transactions::plan::Mutation;
use crate::transactions::replica::Entry;

impl Process {
    /// A client writes in a transaction. The leader asks the transaction coordinator, unless the
    /// transaction is open here already.
    pub(super) fn write(&mut self, write: Write, attempts: u32, cx: &mut Around<'_>) {
        if !self.loaded {
            return refuse(&write, ErrorCode::CoordinatorLoadInProgress, cx);
        }
        match self.ask_to_verify(&write, cx.now) {
            Err(code) => refuse(&write, code, cx),
            Ok(None) => self.verify_not(write, None, attempts, cx),
            Ok(guard) if cx.plan.has(Mutation::VerifiesNothing) => {
                self.verify_not(write, guard, attempts, cx)
            }
            Ok(Some(guard)) => {
                self.numbers += 1;
                self.questions.insert(self.numbers, Question { write, guard, attempts });
                let asker = Asker::Leader(self.leader, self.numbers);
                let ask = match write.version {
                    2.. => Ask::Add {
                        from: write.producer,
                        partitions: vec![self.leader.0.partition()],
                        version: write.version,
                    },
                    _ => Ask::Verify { from: write.producer, partition: self.leader.0.partition() },
                };
                send(To::Role(Role::Coordinator), Body::Ask(asker, write.from.chain, ask), cx);
            }
        }
    }

    fn ask_to_verify(&mut self, write: &Write, now: u64) -> Result<Option<Guard>, ErrorCode> {
        match (&mut self.core, write.what) {
            (Core::Data(replica), What::Record(_, sequence)) => {
                replica.ask_to_verify(write.producer, sequence, write.version >= 2, now)
            }
            (Core::Offsets(core), What::Offset(_)) => Ok(core.ask_to_verify(write.producer)),
            _ => Err(ErrorCode::UnknownTopicOrPartition),
        }
    }

    pub(super) fn verified(&mut self, number: u64, code: ErrorCode, cx: &mut Around<'_>) {
        let Some(Question { write, guard, attempts }) = self.questions.remove(&number) else {
            return;
        };
        match code {
            ErrorCode::None => self.verify_not(write, Some(guard), attempts, cx),
            // The previous transaction is still ending. The leader retries, so that the client need
            // not.
            ErrorCode::ConcurrentTransactions if write.version >= 2 && attempts > 0 => {
                cx.sent.push((To::Leader(self.leader), Body::Write(write), RETRY_MS));
            }
            ErrorCode::ProducerFenced => refuse(&write, ErrorCode::InvalidProducerEpoch, cx),
            code => refuse(&write, code, cx),
        }
    }

    /// The transaction is open, or its coordinator has confirmed it.
    fn verify_not(
        &mut self,
        write: Write,
        mut guard: Option<Guard>,
        attempts: u32,
        cx: &mut Around<'_>,
    ) {
        let forgets = match self.leader.0 {
            Role::Offsets => cx.plan.has(Mutation::ForgetsOffsetGuards),
            _ => cx.plan.has(Mutation::ForgetsGuards),
        };
        if forgets && guard.is_some() {
            guard = self.ask_to_verify(&write, cx.now).unwrap_or(guard);
        }
        let asks_again = (write.version >= 2 || cx.plan.has(Mutation::AsksOfAnother))
            && !cx.plan.has(Mutation::AsksOnce);
        match self.append(&write, guard, cx) {
            Ok(()) => {
                let reply = Body::Reply(write.from, Reply::Code(ErrorCode::None));
                self.owe(To::Client(write.from), reply, cx);
            }
            // The end of a transaction arrived while the leader asked the coordinator. With
            // transactions v1 it was the end of this one.
            Err(ErrorCode::InvalidTxnState) if guard.is_some() && attempts > 0 && asks_again => {
                self.write(write, attempts - 1, cx)
            }
            Err(code) => refuse(&write, code, cx),
        }
    }

    fn append(
        &mut self,
        write: &Write,
        guard: Option<Guard>,
        cx: &mut Around<'_>,
    ) -> Result<(), ErrorCode> {
        let Write { producer, from, .. } = *write;
        match (&mut self.core, write.what) {
            (Core::Data(replica), What::Record(value, sequence)) => {
                let is_new = replica.write(
                    Entry::Data(producer, sequence, value),
                    guard,
                    self.leader.1,
                    cx.now,
                )?;
                if is_new && cx.leads {
                    cx.checks.writes(producer, "a record");
                }
            }
            (Core::Offsets(core), What::Offset(offset)) => {
                let records = core.commit(producer, guard, &id(from.chain), offset, cx.now)?;
                self.log.extend(records.into_iter().map(|record| Entry::Offset(producer, record)));
                if cx.leads {
                    cx.checks.writes(producer, "an offset");
                }
            }
            _ => return Err(ErrorCode::UnknownTopicOrPartition),
        }
        Ok(())
    }
}
