//! What a connection reads: frames, headers, and the body of every request in every version that is
//! served.
//!
//! Nothing panics, nothing is allocated beyond the bytes received, and what decodes survives being
//! encoded and decoded again.

#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use weir_protocol::api::ApiKey;
use weir_protocol::frame::split_request;
use weir_protocol::header::RequestHeader;
use weir_protocol::messages::{self, Message};

const REQUEST_BYTES_MAX: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let mut stream = BytesMut::from(data);
    while let Ok(Some(mut frame)) = split_request(&mut stream, REQUEST_BYTES_MAX) {
        if let Ok(header) = RequestHeader::parse(&mut frame) {
            body(header.api, header.version, frame.freeze());
        }
    }
});

fn round_trip<M: Message>(mut body: Bytes, version: i16) {
    let Ok(message) = M::decode(&mut body, version) else { return };
    let mut encoded = BytesMut::new();
    message.encode(&mut encoded, version).expect("what was decoded can be encoded");
    assert_eq!(M::decode(&mut encoded.freeze(), version), Ok(message));
}

macro_rules! body {
    ($($api:ident, $request:ident, $min:literal, $max:literal;)*) => {
        fn body(api: ApiKey, version: i16, body: Bytes) {
            match api {
                $(ApiKey::$api => round_trip::<messages::$request>(body, version),)*
            }
        }
    };
}

weir_protocol::for_each_api!(body);
