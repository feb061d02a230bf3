//! The errors of reading and writing messages.

/// Why bytes are not a valid message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The buffer ends inside a field.
    #[error("the message ends early: {needed} bytes are needed and {remaining} are there")]
    Truncated {
        /// Bytes that the field takes.
        needed: usize,
        /// Bytes that are left.
        remaining: usize,
    },
    /// A length or count that is out of range.
    #[error("the length {0} is not valid")]
    Length(i64),
    /// A string that is not UTF-8.
    #[error("a string is not UTF-8")]
    Utf8,
    /// A variable-length integer of more than 32 bits.
    #[error("a variable-length integer has more than 32 bits")]
    Varint,
    /// Null where the version does not allow it.
    #[error("the field {0} is null")]
    Null(&'static str),
    /// Tagged fields out of order, twice, or longer than their value.
    #[error("the tagged fields are malformed")]
    Tags,
    /// The message does not have this version.
    #[error("{message} has no version {version}")]
    Version {
        /// The message's name.
        message: &'static str,
        /// The version asked for.
        version: i16,
    },
}

/// Why a message cannot be written. It is always an error of the caller, never of received data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The message does not have this version.
    #[error("{message} has no version {version}")]
    Version {
        /// The message's name.
        message: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// A field holds a value that the version does not carry, so the value would be lost (Kafka's
    /// `UnsupportedVersionException`).
    #[error("version {version} does not carry the field {field}")]
    Unsupported {
        /// The field, as the schema spells it.
        field: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// Null where the version does not allow it.
    #[error("the field {0} is null")]
    Null(&'static str),
    /// Longer than the protocol's length fields allow.
    #[error("a field of {0} bytes or elements is too long")]
    TooLong(usize),
}
