//! PURE: the records of `__transaction_state`, in Kafka's formats (`TransactionLog`).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use weir_protocol::messages::transaction_log_value::PartitionsSchema;
use weir_protocol::messages::{CoordinatorRecord, Message, TransactionLogKey, TransactionLogValue};
use weir_protocol::types::{ProducerEpoch, ProducerId};

use super::state::{NO_EPOCH, Producer, State, Transaction};
use crate::coordinator::{Logged, Record};

/// The version of keys.
const KEY_VERSION: i16 = 0;

/// The version of values: the one with tagged fields, which transactions v2 need.
const VALUE_VERSION: i16 = 1;

/// A decoded record: a transactional id and its state; `None` when the id is deleted.
pub(super) type Change = (String, Option<Transaction>);

/// Decodes a record; `None` for a record of another kind.
///
/// # Errors
/// Why it cannot be decoded.
pub(super) fn read(record: &Logged<'_>) -> Result<Option<Change>, String> {
    let mut key = Bytes::copy_from_slice(record.key);
    if key.len() < 2 {
        return Err("the key has no type".to_owned());
    }
    if key.get_i16() != TransactionLogKey::RECORD_TYPE {
        return Ok(None);
    }
    let key: TransactionLogKey = decode(&mut key, KEY_VERSION)?;
    let Some(value) = record.value else {
        return Ok(Some((key.transactional_id, None)));
    };
    let mut value = Bytes::copy_from_slice(value);
    if value.len() < 2 {
        return Err("the value has no version".to_owned());
    }
    let version = value.get_i16();
    let value = decode(&mut value, version)?;
    Ok(Some((key.transactional_id, Some(transaction(value)?))))
}

fn decode<M: CoordinatorRecord>(bytes: &mut Bytes, version: i16) -> Result<M, String> {
    M::decode(bytes, version).map_err(|error| format!("{}: {error}", M::NAME))
}

fn transaction(value: TransactionLogValue) -> Result<Transaction, String> {
    let state = State::of(value.transaction_status)
        .ok_or_else(|| format!("the status {} is unknown", value.transaction_status))?;
    let partitions = value.transaction_partitions.unwrap_or_default().into_iter();
    let partitions = partitions.flat_map(|topic| {
        let name: Arc<str> = topic.topic.into();
        topic.partition_ids.into_iter().map(move |index| (Arc::clone(&name), index))
    });
    Ok(Transaction {
        producer: Producer {
            id: ProducerId(value.producer_id),
            epoch: ProducerEpoch(value.producer_epoch),
        },
        previous_id: ProducerId(value.previous_producer_id),
        next_id: ProducerId(value.next_producer_id),
        // The record does not hold it: a producer that retries after a failover is fenced, as in
        // Kafka.
        last_epoch: NO_EPOCH,
        timeout_ms: value.transaction_timeout_ms,
        state,
        partitions: partitions.collect(),
        start_ms: value.transaction_start_timestamp_ms,
        update_ms: value.transaction_last_update_timestamp_ms,
        client_version: value.client_transaction_version,
    })
}

/// The record of a transactional id; with `None` its tombstone.
pub(super) fn record(id: &str, transaction: Option<&Transaction>) -> Record {
    let key = TransactionLogKey { transactional_id: id.to_owned() };
    Record {
        key: encode(TransactionLogKey::RECORD_TYPE, &key, KEY_VERSION),
        value: transaction
            .map(|transaction| encode(VALUE_VERSION, &value(transaction), VALUE_VERSION)),
    }
}

fn value(transaction: &Transaction) -> TransactionLogValue {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, index) in &transaction.partitions {
        topics.entry(topic).or_default().push(*index);
    }
    let schemas = topics
        .into_iter()
        .map(|(topic, partition_ids)| PartitionsSchema { topic: topic.to_owned(), partition_ids });
    TransactionLogValue {
        producer_id: transaction.producer.id.0,
        previous_producer_id: transaction.previous_id.0,
        next_producer_id: transaction.next_id.0,
        producer_epoch: transaction.producer.epoch.0,
        transaction_timeout_ms: transaction.timeout_ms,
        transaction_status: transaction.state as i8,
        transaction_partitions: (transaction.state != State::Empty).then(|| schemas.collect()),
        transaction_last_update_timestamp_ms: transaction.update_ms,
        transaction_start_timestamp_ms: transaction.start_ms,
        client_transaction_version: transaction.client_version,
        ..Default::default()
    }
}

fn encode<M: Message>(head: i16, fields: &M, version: i16) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(head);
    // Encoding cannot fail: every field exists in this version, and the names come from decoded
    // requests.
    let _ = fields.encode(&mut bytes, version);
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut transaction = Transaction::new(ProducerId(7), 60_000, 5);
        transaction.producer.epoch = ProducerEpoch(3);
        for state in State::ALL {
            transaction.state = state;
            transaction.partitions = match state {
                State::Empty => Default::default(),
                _ => [("b".into(), 1), ("a".into(), 0), ("a".into(), 2)].into(),
            };
            (transaction.start_ms, transaction.client_version) = (17, 2);
            let written = record("id", Some(&transaction));
            let logged =
                Logged { key: &written.key, value: written.value.as_deref(), transaction: None };
            assert_eq!(read(&logged), Ok(Some(("id".to_owned(), Some(transaction.clone())))));
        }
        let forgotten = record("id", None);
        let logged = |key, value| Logged { key, value, transaction: None };
        assert_eq!(read(&logged(&forgotten.key, None)), Ok(Some(("id".to_owned(), None))));
        assert!(read(&logged(&[0], None)).is_err());
        assert_eq!(read(&logged(&[0, 9, 0, 0], None)), Ok(None));
        assert!(read(&logged(&forgotten.key, Some(&[0, 1, 2]))).is_err());
    }
}
