//! Frames: four bytes of length, then a header and a body.
//!
//! Pure functions on buffers, for the network layer and for our own clients. They compare a frame's
//! length with a limit before they allocate for it.

use bytes::{Buf, BufMut, BytesMut};

use crate::api::ApiKey;
use crate::header::write_response_header;
use crate::messages::{ApiMessage, Measured, Message as _, Request, RequestHeader};
use crate::primitive::EncodeError;

/// The bytes of a frame's length.
pub const LENGTH_SIZE: usize = 4;

/// The shortest request: API key, version and correlation id.
pub const MIN_REQUEST_LENGTH: usize = 8;

/// Why a connection cannot continue: after a wrong length the next frame cannot be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Negative, or too short to hold a request's header.
    #[error("a request of {0} bytes is too short")]
    TooShort(i32),
    /// Longer than the caller's limit.
    #[error("a request of {length} bytes is longer than the limit of {limit}")]
    TooLong {
        /// What the frame claims.
        length: usize,
        /// The limit.
        limit: usize,
    },
}

/// The length that a frame claims for what follows its first four bytes, checked against `limit`
/// (`socket.request.max.bytes`).
///
/// # Errors
/// When no request can have this length; the caller must close the connection.
pub fn request_length(prefix: [u8; LENGTH_SIZE], limit: usize) -> Result<usize, FrameError> {
    let claimed = i32::from_be_bytes(prefix);
    let length = usize::try_from(claimed).map_err(|_| FrameError::TooShort(claimed))?;
    if length < MIN_REQUEST_LENGTH {
        return Err(FrameError::TooShort(claimed));
    }
    if length > limit { Err(FrameError::TooLong { length, limit }) } else { Ok(length) }
}

/// Takes the next complete frame off the front of `buf`, without its length; `None` while bytes of
/// it are missing.
///
/// # Errors
/// As [`request_length`], as soon as the first four bytes are there.
pub fn split_request(buf: &mut BytesMut, limit: usize) -> Result<Option<BytesMut>, FrameError> {
    let Some(prefix) = buf.first_chunk::<LENGTH_SIZE>() else {
        return Ok(None);
    };
    let length = request_length(*prefix, limit)?;
    if buf.len() - LENGTH_SIZE < length {
        return Ok(None);
    }
    buf.advance(LENGTH_SIZE);
    Ok(Some(buf.split_to(length)))
}

/// A whole request frame: length, header and body.
///
/// When the version cannot carry a value of the body, or the body exceeds the longest possible
/// frame.
pub fn encode_request<R: Request>(
    body: &R,
    api: ApiKey,
    version: i16,
    correlation_id: i32,
    client_id: &str,
) -> Result<BytesMut, EncodeError> {
    let header = RequestHeader {
        request_api_key: api.key(),
        request_api_version: version,
        correlation_id,
        client_id: Some(client_id.to_owned()),
    };
    let mut buf = BytesMut::new();
    buf.put_i32(0);
    header.encode(&mut buf, api.request_header_version(version))?;
    body.encode(&mut buf, version)?;
    let length = buf.len();
    write_length(&mut buf, length)?;
    Ok(buf)
}

/// The most bytes of a response's length and header.
const RESPONSE_HEADER_SIZE_MAX: usize = LENGTH_SIZE + 5;

/// A whole response frame: length, header and body. It uses at most the memory that
/// [`response_bytes_max`] returns.
///
/// When the version cannot carry a value of the body, or the body exceeds the longest possible
/// frame.
pub fn encode_response<M: ApiMessage + Measured>(
    body: &M,
    api: ApiKey,
    version: i16,
    correlation_id: i32,
) -> Result<BytesMut, EncodeError> {
    let mut buf = BytesMut::with_capacity(response_bytes_max(body));
    buf.put_i32(0);
    write_response_header(&mut buf, api, version, correlation_id);
    body.encode(&mut buf, version)?;
    let length = buf.len();
    write_length(&mut buf, length)?;
    Ok(buf)
}

/// The most memory that a response's frame takes.
pub fn response_bytes_max(body: &impl Measured) -> usize {
    RESPONSE_HEADER_SIZE_MAX + body.encoded_bytes_max()
}

/// Writes the length of a frame of `total` bytes, which includes the length field, into its first
/// four bytes.
pub(crate) fn write_length(frame: &mut BytesMut, total: usize) -> Result<(), EncodeError> {
    let length = total
        .checked_sub(LENGTH_SIZE)
        .and_then(|length| i32::try_from(length).ok())
        .ok_or(EncodeError::TooLong(total))?;
    if let Some(prefix) = frame.first_chunk_mut::<LENGTH_SIZE>() {
        *prefix = length.to_be_bytes();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::unsupported_api_versions;

    #[test]
    fn lengths_are_checked_before_anything_is_allocated() {
        let limit = 100;
        let table = [
            (0x7fff_ffff, Err(FrameError::TooLong { length: 0x7fff_ffff, limit })),
            (0x4745_5420, Err(FrameError::TooLong { length: 0x4745_5420, limit })),
            (-1, Err(FrameError::TooShort(-1))),
            (i32::MIN, Err(FrameError::TooShort(i32::MIN))),
            (0, Err(FrameError::TooShort(0))),
            (7, Err(FrameError::TooShort(7))),
            (8, Ok(8)),
            (100, Ok(100)),
            (101, Err(FrameError::TooLong { length: 101, limit })),
        ];
        for (claimed, expected) in table {
            assert_eq!(request_length(claimed.to_be_bytes(), limit), expected, "{claimed}");
        }
    }

    #[test]
    fn frames_are_split_wherever_the_bytes_stop() {
        let stream = b"\0\0\0\x0812345678\0\0\0\x09123456789";
        for cut in 0..=stream.len() {
            let mut buf = BytesMut::from(&stream[..cut]);
            let mut frames = Vec::new();
            while let Some(frame) = split_request(&mut buf, 9).unwrap() {
                frames.push(frame);
            }
            buf.put_slice(&stream[cut..]);
            while let Some(frame) = split_request(&mut buf, 9).unwrap() {
                frames.push(frame);
            }
            assert_eq!(frames, [&b"12345678"[..], b"123456789"]);
        }
    }

    #[test]
    fn a_request_is_framed_with_its_header() {
        let request = crate::messages::ApiVersionsRequest::default();
        let mut frame = encode_request(&request, ApiKey::ApiVersions, 4, 9, "client").unwrap();
        let mut request = split_request(&mut frame, 100).unwrap().unwrap();
        let header = crate::header::RequestHeader::parse(&mut request).unwrap();
        assert_eq!(
            (header.api, header.version, header.correlation_id),
            (ApiKey::ApiVersions, 4, 9)
        );
        assert_eq!(
            (header.client_id.as_deref(), &request[..]),
            (Some("client"), &b"\x01\x01\0"[..])
        );
    }

    #[test]
    fn a_response_is_framed_with_its_header() {
        let frame =
            encode_response(&unsupported_api_versions(), ApiKey::ApiVersions, 0, 9).unwrap();
        assert_eq!(frame[..], *b"\0\0\0\x10\0\0\0\x09\0\x23\0\0\0\x01\0\x12\0\0\0\x05");
    }
}
