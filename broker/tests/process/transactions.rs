//! Transaction requests for `apis`: the answers of a broker that coordinates no transactional id.

use weir_protocol::error::ErrorCode;
use weir_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use weir_protocol::messages::describe_producers_request::TopicRequest;
use weir_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use weir_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, DescribeProducersRequest,
    DescribeTransactionsRequest, EndTxnRequest, ListTransactionsRequest, TxnOffsetCommitRequest,
    WriteTxnMarkersRequest,
};

use crate::apis::{NAME, Sensible};

const ID: &str = "an-id";

impl Sensible for AddPartitionsToTxnRequest {
    const EXPECTED: ErrorCode = ErrorCode::NotCoordinator;

    fn sensible(version: i16) -> Self {
        let topics = vec![AddPartitionsToTxnTopic { name: NAME.to_owned(), partitions: vec![0] }];
        if version < 4 {
            return Self {
                v3_and_below_transactional_id: ID.to_owned(),
                v3_and_below_producer_id: 7,
                v3_and_below_topics: topics,
                ..Self::default()
            };
        }
        let transaction = AddPartitionsToTxnTransaction {
            transactional_id: ID.to_owned(),
            producer_id: 7,
            producer_epoch: 0,
            verify_only: false,
            topics,
        };
        Self { transactions: vec![transaction], ..Self::default() }
    }
}

impl Sensible for AddOffsetsToTxnRequest {
    const EXPECTED: ErrorCode = ErrorCode::NotCoordinator;

    fn sensible(_: i16) -> Self {
        Self { transactional_id: ID.to_owned(), group_id: "a-group".to_owned(), ..Self::default() }
    }
}

impl Sensible for EndTxnRequest {
    const EXPECTED: ErrorCode = ErrorCode::NotCoordinator;

    fn sensible(_: i16) -> Self {
        Self { transactional_id: ID.to_owned(), ..Self::default() }
    }
}

impl Sensible for WriteTxnMarkersRequest {
    fn sensible(_: i16) -> Self {
        let marker = WritableTxnMarker {
            producer_id: 7,
            topics: vec![WritableTxnMarkerTopic {
                name: NAME.to_owned(),
                partition_indexes: vec![0],
            }],
            ..Default::default()
        };
        Self { markers: vec![marker] }
    }
}

impl Sensible for TxnOffsetCommitRequest {
    fn sensible(_: i16) -> Self {
        Self { transactional_id: ID.to_owned(), group_id: "a-group".to_owned(), ..Self::default() }
    }
}

impl Sensible for DescribeProducersRequest {
    fn sensible(_: i16) -> Self {
        Self { topics: vec![TopicRequest { name: NAME.to_owned(), partition_indexes: vec![0] }] }
    }
}

impl Sensible for DescribeTransactionsRequest {
    const EXPECTED: ErrorCode = ErrorCode::NotCoordinator;

    fn sensible(_: i16) -> Self {
        Self { transactional_ids: vec![ID.to_owned()] }
    }
}

impl Sensible for ListTransactionsRequest {
    fn sensible(_: i16) -> Self {
        Self::default()
    }
}
