//! Every message of the APIs in the table, and every record that coordinators keep. The build
//! generates them from Kafka's own definitions (`schema/`).
//!
//! A module per message holds its structs. The outermost is also here: `messages::MetadataRequest`
//! is `messages::metadata_request::MetadataRequest`. Fields have the schema's names in snake case.
//! `Default` gives the schema's defaults, and a field that a version does not carry has its
//! default. Records stay bytes here.

use std::ops::RangeInclusive;

use bytes::{Bytes, BytesMut};

pub use crate::measured::Measured;
use crate::primitive::{DecodeError, EncodeError, Version, Wire};

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;

/// A message of the protocol: a request's or response's body, or a header.
#[expect(private_bounds, reason = "how a message is laid out is nobody else's business")]
pub trait Message: Wire + Default + Clone + PartialEq + std::fmt::Debug {
    /// The message's name in Kafka.
    const NAME: &'static str;

    /// The versions that the schema describes, without unstable ones. The API table says which of
    /// them a broker serves.
    const VERSIONS: RangeInclusive<i16>;

    /// The first version with compact lengths and tagged fields (KIP-482); `i16::MAX` if there is
    /// none.
    const FIRST_FLEXIBLE_VERSION: i16;

    /// Reads one message off the front of `buf` and leaves the bytes after it, which Kafka ignores
    /// too.
    ///
    /// Byte strings are slices of `buf`. The allocated memory is proportional to the bytes of
    /// `buf`, whatever its length fields claim.
    ///
    /// # Errors
    /// When the bytes are not a message of this version, or the version does not exist.
    fn decode(buf: &mut Bytes, version: i16) -> Result<Self, DecodeError> {
        let v = version_of::<Self>(version)
            .ok_or(DecodeError::Version { message: Self::NAME, version })?;
        Self::read(buf, v)
    }

    /// Appends the message to `buf`. After an error `buf` may end in a part of the message.
    ///
    /// # Errors
    /// When the version does not exist, or it cannot carry the value of a field that the schema
    /// does not mark as ignorable.
    fn encode(&self, buf: &mut BytesMut, version: i16) -> Result<(), EncodeError> {
        let v = version_of::<Self>(version)
            .ok_or(EncodeError::Version { message: Self::NAME, version })?;
        self.write(buf, v)
    }
}

fn version_of<M: Message>(number: i16) -> Option<Version> {
    M::VERSIONS
        .contains(&number)
        .then_some(Version { number, flexible: number >= M::FIRST_FLEXIBLE_VERSION })
}

/// The body of a request or response.
pub trait ApiMessage: Message {
    /// The API's key.
    const API_KEY: i16;
}

/// The body of a request.
pub trait Request: ApiMessage {
    /// The response, in the same version.
    type Response: ApiMessage + Failing + Measured;
}

/// The key or the value of a record that a coordinator keeps in its topic. The key begins with the
/// type, the value with its version, both as `int16`.
pub trait CoordinatorRecord: Message {
    /// The record's type.
    const RECORD_TYPE: i16;
}

/// A value that can hold error codes: a response, or a struct in it.
pub trait Failing {
    /// Whether any error code in it, at any depth, is set.
    fn has_error(&self) -> bool;
}

impl<T: Failing> Failing for Vec<T> {
    fn has_error(&self) -> bool {
        self.iter().any(T::has_error)
    }
}

impl<T: Failing> Failing for Option<T> {
    fn has_error(&self) -> bool {
        self.as_ref().is_some_and(T::has_error)
    }
}

/// The imports of every generated module.
mod prelude {
    pub(super) use std::ops::RangeInclusive;

    pub(super) use bytes::{Bytes, BytesMut};
    pub(super) use uuid::Uuid;

    #[cfg(test)]
    pub(super) use super::sample::{Random, Sample};
    pub(super) use super::{ApiMessage, CoordinatorRecord, Failing, Measured, Message, Request};
    pub(super) use crate::primitive::{
        DecodeError, EncodeError, Version, Wire, shortened, write_str,
    };
    pub(super) use crate::tagged::{
        TagWriter, Tags, at_end, non_null, read_nullable_struct, refuse_null, refuse_unsupported,
        skip_tags, write_no_tags, write_nullable_struct,
    };
}

#[allow(
    unused_imports,
    clippy::field_reassign_with_default,
    clippy::doc_lazy_continuation,
    clippy::doc_markdown,
    clippy::single_match
)]
mod generated {
    use super::{ApiMessage, CoordinatorRecord, Failing, Measured, Message, Request, prelude};

    include!(concat!(env!("OUT_DIR"), "/messages.rs"));
}

pub use generated::*;
