//! The vocabulary of the cluster: ids, offsets and epochs, each a type of its own.
//!
//! Offsets, epochs and broker ids are all integers with different meanings. So each has its own
//! type everywhere, except in the wire format and as an index into a buffer. The types have no
//! behaviour beyond ordering and the next value.

use std::fmt;

use uuid::Uuid;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

number!(
    /// A broker's stable id (pool and ordinal), `0..=i32::MAX`; `-1` on the wire means none.
    BrokerId(i32)
);
number!(
    /// Counts the leaders of a partition: it rises with each change of leader. `-1` on the wire
    /// means unknown.
    LeaderEpoch(i32)
);
number!(
    /// Counts the changes of a partition's state. An ISR change is a compare-and-swap on it.
    PartitionEpoch(i32)
);
number!(
    /// The number of a broker's registration. A request with an older one is fenced (KIP-841,
    /// KIP-903). `-1` means none.
    BrokerEpoch(i64)
);
number!(
    /// Counts the controllers of the cluster. Brokers refuse an older one.
    ControllerEpoch(i64)
);
number!(
    /// The id of an idempotent or transactional producer; `-1` on the wire means none.
    ProducerId(i64)
);
number!(
    /// Counts the incarnations of one producer id; `-1` on the wire means none.
    ProducerEpoch(i16)
);

impl LeaderEpoch {
    /// A client sends it when it does not know the epoch; it turns the check off.
    pub const UNKNOWN: Self = Self(-1);
}

/// A topic's immutable id (KIP-516). A topic that is deleted and created again under the same name
/// gets another id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub Uuid);

impl TopicId {
    /// "No id", in versions before topic ids.
    pub const ZERO: Self = Self(Uuid::nil());

    /// A new random id. It is never one of the two that Kafka reserves, and its text never begins
    /// with a dash, because command lines would take it for a flag (`Uuid.randomUuid` in Apache
    /// Kafka).
    pub fn random() -> Self {
        loop {
            let id = Self(Uuid::new_v4());
            if !id.to_string().starts_with('-') {
                return id;
            }
        }
    }

    /// Reads the form that `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bits: u128 = 0;
        let (last, digits) = text.as_bytes().split_last()?;
        let value = |digit: &u8| {
            ALPHABET.iter().position(|known| known == digit).map(|value| value as u128)
        };
        for digit in digits {
            bits = bits << 6 | value(digit)?;
        }
        let last = value(last)?;
        (text.len() == 22 && last & 15 == 0).then(|| Self(Uuid::from_u128(bits << 2 | last >> 4)))
    }
}

impl From<Uuid> for TopicId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

/// The digits of URL-safe base64.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl fmt::Display for TopicId {
    /// The URL-safe base64 form without padding that Kafka's tools print (`Uuid.toString` in Apache
    /// Kafka).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0.as_u128();
        // 22 digits of 6 bits hold the 128 bits; the last digit is padded with four zero bits on
        // the right.
        for digit in 0..22 {
            let shift = 122 - 6 * digit;
            let value = if shift >= 0 { bits >> shift } else { bits << -shift } & 63;
            f.write_str(
                std::str::from_utf8(&ALPHABET[value as usize..=value as usize]).unwrap_or_default(),
            )?;
        }
        Ok(())
    }
}

/// One partition of one topic, by the topic's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicId,
    /// The partition's index in it, `0..`.
    pub index: i32,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_id_prints_as_in_kafka() {
        // org.apache.kafka.common.Uuid.METADATA_TOPIC_ID is (0, 1).
        assert_eq!(TopicId(Uuid::from_u128(1)).to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(TopicId(Uuid::from_u128(u128::MAX)).to_string(), "_____________________w");
        for _ in 0..100 {
            let id = TopicId::random();
            assert_eq!(TopicId::parse(&id.to_string()), Some(id));
        }
        for wrong in [
            "",
            "AAAA",
            "AAAAAAAAAAAAAAAAAAAAAB",
            "AAAAAAAAAAAAAAAAAAAA+A",
            "AAAAAAAAAAAAAAAAAAAAAQA",
        ] {
            assert_eq!(TopicId::parse(wrong), None, "{wrong}");
        }
    }
}
