//! The headers of requests and responses.
//!
//! A request's header names the API and the version of its body, so it must be read first. The
//! network layer calls this once per frame. It never reads the body.

use bytes::{Buf, BufMut, BytesMut};

use crate::api::ApiKey;
use crate::primitive::{DecodeError, need, read_string};
use crate::tagged::skip_all_tags;

/// The header of a request that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// The API.
    pub api: ApiKey,
    /// The version of the request's and the response's body. The broker serves it.
    pub version: i16,
    /// The number that the response repeats.
    pub correlation_id: i32,
    /// The client's name for itself, any text of up to 32,767 bytes.
    pub client_id: Option<String>,
}

/// Why a request cannot be served. As in Kafka, every variant but the last closes the connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The bytes are not a header.
    #[error("the request header is malformed: {0}")]
    Malformed(#[from] DecodeError),
    /// The broker serves no API with this key.
    #[error("no API with the key {0} is served")]
    UnknownApi(i16),
    /// The API is served, but not in this version.
    #[error("{api} is not served in version {version}")]
    UnsupportedVersion {
        /// The API.
        api: ApiKey,
        /// The version asked for.
        version: i16,
    },
    /// An ApiVersions request of a version that is not served. Its answer is
    /// [`crate::api::unsupported_api_versions`] in version 0.
    #[error("ApiVersions is not served in version {version}")]
    UnsupportedApiVersions {
        /// The version asked for.
        version: i16,
        /// The number that the response repeats.
        correlation_id: i32,
    },
}

impl RequestHeader {
    /// Reads the header off the front of a frame and leaves the body there.
    ///
    /// The client id has a 16-bit length in the flexible header too, so that a broker can read the
    /// header of an ApiVersions request of a later version.
    ///
    /// # Errors
    /// See [`HeaderError`].
    pub fn parse(frame: &mut BytesMut) -> Result<Self, HeaderError> {
        need(frame, 8)?;
        let key = frame.get_i16();
        let version = frame.get_i16();
        let correlation_id = frame.get_i32();
        let api = ApiKey::from_key(key).ok_or(HeaderError::UnknownApi(key))?;
        if !api.serves(version) {
            return Err(match api {
                ApiKey::ApiVersions => {
                    HeaderError::UnsupportedApiVersions { version, correlation_id }
                }
                api => HeaderError::UnsupportedVersion { api, version },
            });
        }
        let client_id = read_string(frame, false)?;
        if api.request_header_version(version) >= 2 {
            skip_all_tags(frame)?;
        }
        Ok(Self { api, version, correlation_id, client_id })
    }
}

/// Appends the header of the response to a request of `api` in `version`.
pub fn write_response_header(buf: &mut BytesMut, api: ApiKey, version: i16, correlation_id: i32) {
    buf.put_i32(correlation_id);
    if api.response_header_version(version) >= 1 {
        // No tagged fields.
        buf.put_u8(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{self, Message};

    fn request(key: i16, version: i16, header_version: i16, client_id: Option<&str>) -> BytesMut {
        let header = messages::RequestHeader {
            request_api_key: key,
            request_api_version: version,
            correlation_id: 7,
            client_id: client_id.map(str::to_owned),
        };
        let mut buf = BytesMut::new();
        header.encode(&mut buf, header_version).unwrap();
        buf.put_slice(b"body");
        buf
    }

    #[test]
    fn both_versions_of_the_header_leave_the_body() {
        let table = [
            (ApiKey::Metadata, 8, 1),
            (ApiKey::Metadata, 9, 2),
            (ApiKey::ApiVersions, 5, 2),
            (ApiKey::Produce, 3, 1),
        ];
        for (api, version, header_version) in table {
            for client_id in [None, Some(""), Some("client")] {
                let mut frame = request(api.key(), version, header_version, client_id);
                let header = RequestHeader::parse(&mut frame).unwrap();
                assert_eq!(
                    header,
                    RequestHeader {
                        api,
                        version,
                        correlation_id: 7,
                        client_id: client_id.map(str::to_owned)
                    }
                );
                assert_eq!(frame, "body");
            }
        }
    }

    #[test]
    fn what_is_not_served_is_told_apart() {
        let produce = HeaderError::UnsupportedVersion { api: ApiKey::Produce, version: 2 };
        let table = [
            (4, 0, HeaderError::UnknownApi(4)),
            (-1, 0, HeaderError::UnknownApi(-1)),
            (0, 2, produce),
            (3, 14, HeaderError::UnsupportedVersion { api: ApiKey::Metadata, version: 14 }),
            (18, 6, HeaderError::UnsupportedApiVersions { version: 6, correlation_id: 7 }),
            (18, -1, HeaderError::UnsupportedApiVersions { version: -1, correlation_id: 7 }),
        ];
        for (key, version, expected) in table {
            assert_eq!(RequestHeader::parse(&mut request(key, version, 2, None)), Err(expected));
        }
    }

    #[test]
    fn every_truncation_is_malformed() {
        let whole = request(3, 12, 2, Some("client")).split_to(8 + 2 + 6 + 1);
        for length in 0..whole.len() {
            let result = RequestHeader::parse(&mut BytesMut::from(&whole[..length]));
            assert!(
                matches!(result, Err(HeaderError::Malformed(DecodeError::Truncated { .. }))),
                "{length} bytes: {result:?}"
            );
        }
    }

    #[test]
    fn response_headers_are_those_of_the_schema() {
        for (api, version, header_version) in
            [(ApiKey::Fetch, 11, 0), (ApiKey::Fetch, 12, 1), (ApiKey::ApiVersions, 5, 0)]
        {
            let mut ours = BytesMut::new();
            write_response_header(&mut ours, api, version, -5);
            let mut theirs = BytesMut::new();
            messages::ResponseHeader { correlation_id: -5 }
                .encode(&mut theirs, header_version)
                .unwrap();
            assert_eq!(ours, theirs);
        }
    }
}
