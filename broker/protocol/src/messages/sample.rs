//! Random messages for tests: every field that a version carries gets a value, including every kind
//! of empty one.
//!
//! The generated code fills the structs. A seed always gives the same message, so a failing test
//! prints its seed.

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use crate::messages::Message;
use crate::primitive::Version;

/// A type of which tests can make a random value.
pub(crate) trait Sample: Sized {
    fn sample(random: &mut Random, v: Version) -> Self;
}

/// A random message of a version.
pub(crate) fn sample<M: Message + Sample>(seed: u64, version: i16) -> M {
    let v = Version { number: version, flexible: version >= M::FIRST_FLEXIBLE_VERSION };
    M::sample(&mut Random(seed), v)
}

/// A random message of a version, encoded.
pub(crate) fn sample_bytes<M: Message + Sample>(seed: u64, version: i16) -> Bytes {
    let mut buf = BytesMut::new();
    sample::<M>(seed, version).encode(&mut buf, version).unwrap();
    buf.freeze()
}

/// A generator of pseudo-random numbers (SplitMix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

macro_rules! number {
    ($($type:ty),*) => {$(
        impl Sample for $type {
            fn sample(random: &mut Random, _: Version) -> Self {
                let edges = [0, 1, Self::MAX, Self::MIN, Self::MAX - 1];
                let at = random.below(10);
                edges.get(at).copied().unwrap_or(random.next() as Self)
            }
        }
    )*};
}

number!(i8, i16, i32, i64, u16, u32);

impl Sample for bool {
    fn sample(random: &mut Random, _: Version) -> Self {
        random.below(2) == 0
    }
}

impl Sample for f64 {
    fn sample(random: &mut Random, _: Version) -> Self {
        random.below(1000) as Self / 8.0
    }
}

impl Sample for Uuid {
    fn sample(random: &mut Random, _: Version) -> Self {
        Self::from_u64_pair(random.next(), random.next())
    }
}

impl Sample for String {
    fn sample(random: &mut Random, _: Version) -> Self {
        // Lengths around the point where the flexible length needs a second byte.
        let length = [0, 0, 1, 5, 126, 127, 128][random.below(7)];
        (0..length).map(|_| ['a', '.', '\0', 'é', '語', '🦀'][random.below(6)]).collect()
    }
}

impl Sample for Bytes {
    fn sample(random: &mut Random, _: Version) -> Self {
        let length = [0, 1, 61, 127, 128, 300][random.below(6)];
        (0..length).map(|_| random.next() as u8).collect()
    }
}

impl<T: Sample> Sample for Vec<T> {
    fn sample(random: &mut Random, v: Version) -> Self {
        (0..random.below(4)).map(|_| T::sample(random, v)).collect()
    }
}

impl<T: Sample> Sample for Option<T> {
    fn sample(random: &mut Random, v: Version) -> Self {
        (random.below(4) > 0).then(|| T::sample(random, v))
    }
}
