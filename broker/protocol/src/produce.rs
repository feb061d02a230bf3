//! The Produce request, decoded without copying its records.
//!
//! Each partition's records become a buffer of their own, split off the frame. It is writable,
//! because the log patches the base offset and leader epoch in place. Only the Produce handler
//! calls this decoder; the response and the tests use the generated codec. It never reads the
//! records.

use std::cell::Cell;

use bytes::{Buf, BytesMut};
use uuid::Uuid;

use crate::batch::HEADER_BYTES;
use crate::messages::{self, Message};
use crate::primitive::{DecodeError, long_length, need, read_length, read_string};
use crate::tagged::skip_all_tags;
use crate::types::TopicId;

/// The first version that names topics by id (KIP-516).
const FIRST_TOPIC_ID_VERSION: i16 = 13;

/// A Produce request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProduceRequest {
    /// The transaction's id, if the records belong to one.
    pub transactional_id: Option<String>,
    /// How many replicas must have the records before the answer: 0 (the broker sends no answer),
    /// 1, or -1 for all in-sync replicas. The decoder does not check it.
    pub acks: i16,
    /// How long the client waits for those replicas, in milliseconds. The decoder does not check
    /// it.
    pub timeout_ms: i32,
    /// The records by topic.
    pub topics: Vec<ProduceTopic>,
}

/// The records for one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProduceTopic {
    /// The topic.
    pub topic: TopicRef,
    /// The records by partition.
    pub partitions: Vec<ProducePartition>,
}

/// How a request names a topic: by name up to version 12, by id from 13 on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TopicRef {
    /// By name.
    Name(String),
    /// By id.
    Id(TopicId),
}

/// The records for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducePartition {
    /// The partition's index.
    pub index: i32,
    /// Record batches, not checked: a part of the frame to which only this buffer refers.
    pub records: Option<BytesMut>,
}

impl ProduceRequest {
    /// Decodes the body of a request, which is the rest of a frame after
    /// [`crate::header::RequestHeader::parse`]. Bytes after the body are ignored.
    ///
    /// # Errors
    /// When the bytes are not a Produce request of this version, or the version does not exist.
    pub fn decode(mut body: BytesMut, version: i16) -> Result<Self, DecodeError> {
        if !messages::ProduceRequest::VERSIONS.contains(&version) {
            return Err(DecodeError::Version { message: messages::ProduceRequest::NAME, version });
        }
        let left = Cell::new(named_max(body.len()));
        let reader = Reader {
            left: &left,
            flexible: version >= messages::ProduceRequest::FIRST_FLEXIBLE_VERSION,
            by_id: version >= FIRST_TOPIC_ID_VERSION,
        };
        let buf = &mut body;
        let transactional_id = read_string(buf, reader.flexible)?;
        need(buf, 6)?;
        let acks = buf.get_i16();
        let timeout_ms = buf.get_i32();
        let topics = reader.array(buf, Reader::topic)?;
        reader.tags(buf)?;
        Ok(Self { transactional_id, acks, timeout_ms, topics })
    }
}

/// What the decoder of a part needs to know of the version, and what is left of the limit.
#[derive(Clone, Copy)]
struct Reader<'a> {
    /// How many more topics and partitions the request may name.
    left: &'a Cell<usize>,
    flexible: bool,
    by_id: bool,
}

/// The most topics and partitions together that a request of this many bytes may name. A partition
/// without records takes six bytes, and some eighty while it is answered. A batch has a header of
/// 61 bytes, so no client with records to send exceeds this limit.
fn named_max(bytes: usize) -> usize {
    const NAMED_MAX: usize = 100_000;
    const WITHOUT_RECORDS_MAX: usize = 500;
    NAMED_MAX.min(WITHOUT_RECORDS_MAX + bytes / HEADER_BYTES)
}

/// The fewest bytes of a topic or a partition: an index or the length of a name, and a length. It
/// lets the received bytes bound the capacity of an array.
const MIN_ELEMENT_SIZE: usize = 3;

impl Reader<'_> {
    fn array<T>(
        self,
        buf: &mut BytesMut,
        element: impl Fn(Self, &mut BytesMut) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let length =
            read_length(buf, self.flexible, long_length)?.ok_or(DecodeError::Length(-1))?;
        need(buf, length.saturating_mul(MIN_ELEMENT_SIZE))?;
        let left = self.left.get().checked_sub(length).ok_or(DecodeError::Length(length as i64))?;
        self.left.set(left);
        let mut elements = Vec::with_capacity(length);
        for _ in 0..length {
            elements.push(element(self, buf)?);
        }
        Ok(elements)
    }

    fn topic(self, buf: &mut BytesMut) -> Result<ProduceTopic, DecodeError> {
        let topic = if self.by_id {
            need(buf, 16)?;
            TopicRef::Id(TopicId(Uuid::from_u128(buf.get_u128())))
        } else {
            TopicRef::Name(read_string(buf, self.flexible)?.ok_or(DecodeError::Null("Name"))?)
        };
        let partitions = self.array(buf, Self::partition)?;
        self.tags(buf)?;
        Ok(ProduceTopic { topic, partitions })
    }

    fn partition(self, buf: &mut BytesMut) -> Result<ProducePartition, DecodeError> {
        need(buf, 4)?;
        let index = buf.get_i32();
        let records = match read_length(buf, self.flexible, long_length)? {
            None => None,
            Some(length) => {
                need(buf, length)?;
                Some(buf.split_to(length))
            }
        };
        self.tags(buf)?;
        Ok(ProducePartition { index, records })
    }

    fn tags(self, buf: &mut BytesMut) -> Result<(), DecodeError> {
        if self.flexible { skip_all_tags(buf) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::sample::sample_bytes;

    /// The same request, decoded by the generated codec.
    fn generated(mut body: bytes::Bytes, version: i16) -> ProduceRequest {
        let request = messages::ProduceRequest::decode(&mut body, version).unwrap();
        let topics = request.topic_data.into_iter().map(|topic| ProduceTopic {
            topic: if version >= 13 {
                TopicRef::Id(TopicId(topic.topic_id))
            } else {
                TopicRef::Name(topic.name)
            },
            partitions: (topic.partition_data.into_iter())
                .map(|partition| ProducePartition {
                    index: partition.index,
                    records: partition.records.map(|records| BytesMut::from(&records[..])),
                })
                .collect(),
        });
        ProduceRequest {
            transactional_id: request.transactional_id,
            acks: request.acks,
            timeout_ms: request.timeout_ms,
            topics: topics.collect(),
        }
    }

    #[test]
    fn it_decodes_what_the_generated_codec_decodes() {
        for version in 3..=13 {
            for seed in 0..100 {
                let body = sample_bytes::<messages::ProduceRequest>(seed, version);
                let decoded = ProduceRequest::decode(BytesMut::from(&body[..]), version).unwrap();
                assert_eq!(decoded, generated(body, version), "{version} seed {seed}");
            }
        }
    }

    #[test]
    fn it_refuses_more_partitions_than_anybody_has() {
        let request = |topics: i32, partitions: i32, records: usize| {
            let mut body = BytesMut::new();
            // No transaction, acks 1, any timeout; then topics without a name.
            body.extend_from_slice(&[0xff, 0xff, 0, 1, 0, 0, 0, 9]);
            body.extend_from_slice(&topics.to_be_bytes());
            for _ in 0..topics {
                body.extend_from_slice(&[0, 0]);
                body.extend_from_slice(&partitions.to_be_bytes());
                for index in 0..partitions {
                    body.extend_from_slice(&index.to_be_bytes());
                    body.extend_from_slice(&u32::try_from(records).unwrap().to_be_bytes());
                    body.extend_from_slice(&vec![0; records]);
                }
            }
            ProduceRequest::decode(body, 7).map(|request| request.topics.len())
        };
        assert_eq!(request(1, 99_999, HEADER_BYTES), Ok(1));
        assert_eq!(request(1, 100_000, HEADER_BYTES), Err(DecodeError::Length(100_000)));
        assert_eq!(
            request(300, 400, HEADER_BYTES),
            Err(DecodeError::Length(400)),
            "all topics together"
        );
        assert_eq!(request(1, 500, 0), Ok(1));
        assert_eq!(
            request(1, 600, 0),
            Err(DecodeError::Length(600)),
            "nobody has nothing to send to so many"
        );
    }

    #[test]
    fn it_refuses_what_the_generated_codec_refuses() {
        for version in 3..=13 {
            let body = sample_bytes::<messages::ProduceRequest>(3, version);
            for at in 0..body.len() {
                assert!(
                    ProduceRequest::decode(BytesMut::from(&body[..at]), version).is_err(),
                    "{version} cut to {at}"
                );
                let mut broken = BytesMut::from(&body[..]);
                broken[at] ^= 0xff;
                let theirs =
                    messages::ProduceRequest::decode(&mut broken.clone().freeze(), version);
                assert_eq!(
                    ProduceRequest::decode(broken, version).is_ok(),
                    theirs.is_ok(),
                    "{version} broken at {at}"
                );
            }
        }
        assert!(matches!(
            ProduceRequest::decode(BytesMut::new(), 2),
            Err(DecodeError::Version { version: 2, .. })
        ));
    }

    #[test]
    fn a_count_that_the_bytes_cannot_hold_is_refused_at_once() {
        let body = BytesMut::from(&b"\xff\xff\0\x01\0\0\0\x01\x7f\xff\xff\xff"[..]);
        let needed = MIN_ELEMENT_SIZE * 0x7fff_ffff;
        assert_eq!(
            ProduceRequest::decode(body, 3),
            Err(DecodeError::Truncated { needed, remaining: 0 })
        );
    }

    #[test]
    fn the_records_are_the_frames_own_bytes() {
        let body = BytesMut::from(
            &b"\xff\xff\0\x01\0\0\0\x01\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\x05\0\0\0\x07records"[..],
        );
        let frame = body.as_ptr() as usize..body.as_ptr() as usize + body.len();
        let mut request = ProduceRequest::decode(body, 3).unwrap();
        let records = request.topics[0].partitions[0].records.as_mut().unwrap();
        assert!(frame.contains(&(records.as_ptr() as usize)));
        records[0] = b'R';
        assert_eq!(records, &b"Records"[..]);
    }
}
