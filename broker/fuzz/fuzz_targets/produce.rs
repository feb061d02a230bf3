//! The Produce request by the codec that splits the records off the frame: it takes exactly what
//! the generated codec takes.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use weir_protocol::messages::{self, Message};
use weir_protocol::produce::ProduceRequest;

fuzz_target!(|data: &[u8]| {
    let Some((version, body)) = data.split_first() else { return };
    // Versions 2 to 14, of which the first and the last do not exist.
    let version = i16::from(version % 13) + 2;
    let split = ProduceRequest::decode(BytesMut::from(body), version);
    let copied = messages::ProduceRequest::decode(&mut BytesMut::from(body).freeze(), version);
    match (split, copied) {
        (Ok(split), Ok(copied)) => {
            let records = split
                .topics
                .iter()
                .flat_map(|topic| &topic.partitions)
                .map(|partition| partition.records.as_deref());
            let expected = copied
                .topic_data
                .iter()
                .flat_map(|topic| &topic.partition_data)
                .map(|partition| partition.records.as_deref());
            assert!(records.eq(expected));
        }
        (split, copied) => assert_eq!(split.is_ok(), copied.is_ok()),
    }
});
