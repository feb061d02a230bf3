//! PURE: the transactions in a coordinator's own partition: which producers may write in one, and
//! which marker ends one.
//!
//! Only the coordinator appends to its partition. So this is the log's producer state, one step
//! ahead of the log. A refused write never reaches the machine, and the log accepts every write
//! that does.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use weir_protocol::batch::BatchHeader;
use weir_protocol::error::ErrorCode;
use weir_protocol::types::{LeaderEpoch, ProducerEpoch, ProducerId};

use weir_log::producers::{Guard, Marker, ProducerError, Producers, Verifications};

/// The producer of a transaction.
pub(crate) type Producer = (ProducerId, ProducerEpoch);

/// A write in a transaction, and the guard of the verification that permits it. The guard is `None`
/// if the transaction is open in the partition already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InTransaction {
    pub(crate) producer: Producer,
    pub(crate) guard: Option<Guard>,
}

/// The producers of one partition.
#[derive(Debug, Default)]
pub(crate) struct Transactional {
    producers: Producers,
    asked: Verifications,
    /// Stands for the offset of the next append; only the order matters.
    next: i64,
}

impl Transactional {
    /// The producer state of the log, in a leadership of this epoch.
    pub(crate) fn of(producers: Producers, epoch: LeaderEpoch) -> Self {
        Self { producers, asked: Verifications::of(epoch), ..Self::default() }
    }

    /// Registers a verification: the transaction's coordinator is asked whether this partition is
    /// part of it. `None` if the transaction is open here already.
    pub(crate) fn ask(&mut self, (id, epoch): Producer) -> Option<Guard> {
        let is_open = self.producers.has_open_transaction(id, epoch);
        (!is_open).then(|| self.asked.ask(id, epoch, 0, false))
    }

    /// Checks that the producer may write here now.
    ///
    /// INVALID_TXN_STATE when the transaction has ended since the verification began,
    /// INVALID_PRODUCER_EPOCH for a fenced producer.
    pub(crate) fn admit(&self, write: InTransaction) -> Result<(), ErrorCode> {
        let (id, epoch) = write.producer;
        let standing = self.asked.standing(id, epoch, write.guard);
        if !standing.permits(|| self.producers.has_open_transaction(id, epoch)) {
            return Err(ErrorCode::InvalidTxnState);
        }
        self.producers.admit_epoch(id, epoch).map_err(code)
    }

    /// Checks that the marker ends the producer's transaction, or changes nothing.
    ///
    /// # Errors
    /// INVALID_PRODUCER_EPOCH or TRANSACTION_COORDINATOR_FENCED for an outdated marker.
    pub(crate) fn admit_marker(&self, marker: &Marker) -> Result<(), ErrorCode> {
        self.producers.admit_marker(marker).map_err(code)
    }

    /// Takes up a batch that is being appended.
    pub(crate) fn appended(&mut self, header: &BatchHeader, batch: &[u8], now_ms: i64) {
        if !header.has_producer() {
            return;
        }
        self.next += 1;
        let header = BatchHeader { base_offset: self.next, ..*header };
        let change = self.producers.replay(&header, batch, now_ms);
        self.asked.appended(&header, change.is_some());
    }

    /// Drops expired producers, as the log does.
    pub(crate) fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.producers.expire(now_ms, expiration_ms);
    }
}

fn code(error: ProducerError) -> ErrorCode {
    error.code()
}

#[cfg(test)]
mod tests {
    use weir_protocol::record::BatchBuilder;

    use super::*;
    use weir_log::Prepared;

    fn producer(epoch: i16) -> Producer {
        (ProducerId(7), ProducerEpoch(epoch))
    }

    fn write(transactional: &mut Transactional, epoch: i16) {
        let mut builder =
            BatchBuilder::new(0).producer(ProducerId(7), ProducerEpoch(epoch), -1).transactional();
        builder.append(0, 1, None, None, []);
        let batch = builder.build(0).unwrap();
        transactional.appended(&BatchHeader::parse(&batch).unwrap(), &batch, 1);
    }

    fn marker(epoch: i16, coordinator_epoch: i32, transaction_version: i8) -> Marker {
        Marker {
            producer: ProducerId(7),
            epoch: ProducerEpoch(epoch),
            coordinator_epoch,
            commit: true,
            transaction_version,
        }
    }

    fn end(transactional: &mut Transactional, marker: Marker) -> Result<(), ErrorCode> {
        transactional.admit_marker(&marker)?;
        let prepared = Prepared::marker(marker, 1).unwrap();
        transactional.appended(&prepared.headers[0], &prepared.bytes, 1);
        Ok(())
    }

    #[test]
    fn an_answer_is_worth_nothing_once_the_transaction_has_ended() {
        for (version, ended_as) in [(0, 0), (2, 1)] {
            let mut transactional = Transactional::default();
            let late =
                InTransaction { producer: producer(0), guard: transactional.ask(producer(0)) };
            assert!(late.guard.is_some());
            assert_eq!(transactional.admit(late), Ok(()));
            // Another request of the same transaction was faster, and the transaction has ended
            // since.
            write(&mut transactional, 0);
            assert_eq!(transactional.ask(producer(0)), None, "open already");
            assert_eq!(transactional.admit(late), Ok(()), "it is open");
            end(&mut transactional, marker(ended_as, 3, version)).unwrap();
            assert_eq!(
                transactional.admit(late),
                Err(ErrorCode::InvalidTxnState),
                "version {version}"
            );
            // Nor for the transaction after it, which with transactions v1 has the same epoch.
            let next = InTransaction {
                producer: producer(ended_as),
                guard: transactional.ask(producer(ended_as)),
            };
            assert_eq!(transactional.admit(next), Ok(()));
            write(&mut transactional, ended_as);
            assert_eq!(transactional.admit(next), Ok(()));
            let refused = transactional.admit(late);
            assert_eq!(refused, Err(ErrorCode::InvalidTxnState), "version {version}");
        }
    }

    #[test]
    fn a_marker_settles_questions_though_nothing_was_written() {
        let mut transactional = Transactional::default();
        let guard = transactional.ask(producer(0));
        end(&mut transactional, marker(0, 3, 0)).unwrap();
        let producer = producer(0);
        assert_eq!(
            transactional.admit(InTransaction { producer, guard }),
            Err(ErrorCode::InvalidTxnState)
        );
    }

    #[test]
    fn who_comes_late_is_refused() {
        let mut transactional = Transactional::default();
        write(&mut transactional, 0);
        assert_eq!(
            end(&mut transactional, marker(0, 3, 2)),
            Err(ErrorCode::InvalidProducerEpoch),
            "of the one before"
        );
        end(&mut transactional, marker(1, 3, 2)).unwrap();
        end(&mut transactional, marker(1, 3, 2)).unwrap();
        assert_eq!(
            end(&mut transactional, marker(1, 2, 2)),
            Err(ErrorCode::TransactionCoordinatorFenced)
        );
        let guard = transactional.ask(producer(0));
        let zombie = InTransaction { producer: producer(0), guard };
        assert_eq!(transactional.admit(zombie), Err(ErrorCode::InvalidProducerEpoch));
    }

    /// The largest epoch cannot be raised. A transaction in it ends all the same (KAFKA-20090).
    #[test]
    fn a_transaction_in_the_last_epoch_ends() {
        let mut transactional = Transactional::default();
        write(&mut transactional, i16::MAX - 1);
        let early = end(&mut transactional, marker(i16::MAX - 1, 3, 2));
        assert_eq!(early, Err(ErrorCode::InvalidProducerEpoch), "one that can be raised");
        end(&mut transactional, marker(i16::MAX, 3, 2)).unwrap();
        write(&mut transactional, i16::MAX);
        assert_eq!(transactional.ask(producer(i16::MAX)), None, "it is open");
        end(&mut transactional, marker(i16::MAX, 3, 2)).unwrap();
        assert!(transactional.ask(producer(i16::MAX)).is_some(), "it is open no more");
    }
}
