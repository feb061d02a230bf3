//! The offset of each key's newest record: Kafka's `SkimpyOffsetMap`.
//!
//! The map holds a 128-bit hash of each key, never the key. Unlike Kafka's MD5, the hash has a
//! secret. So a client cannot choose two keys of which one removes the other.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use siphasher::sip128::{Hasher128, SipHasher24};

/// A key's hash. The hash table uses its first half, which is as good as random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KeyHash(u64, u64);

impl Hash for KeyHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// The newest offset of each key in a part of the log. No caller depends on the map's order.
#[derive(Debug)]
pub struct OffsetMap {
    offsets: HashMap<KeyHash, i64, BuildHasherDefault<AsItIs>>,
    keys_max: usize,
    hasher: SipHasher24,
    end_offset: i64,
}

impl OffsetMap {
    /// An empty map for at most `keys_max` keys, of some 50 bytes each. `secret` is random.
    pub fn new(keys_max: usize, secret: [u8; 16]) -> Self {
        Self {
            offsets: HashMap::default(),
            keys_max,
            hasher: SipHasher24::new_with_key(&secret),
            end_offset: 0,
        }
    }

    /// Returns the first offset that the map does not cover. Records from here on stay.
    pub fn end_offset(&self) -> i64 {
        self.end_offset
    }

    /// Marks all records before `offset` as covered.
    pub fn known_up_to(&mut self, offset: i64) {
        self.end_offset = self.end_offset.max(offset);
    }

    /// Adds a record. Returns false when the map is full. Callers pass ascending offsets.
    pub fn put(&mut self, key: &[u8], offset: i64) -> bool {
        let hash = self.hash(key);
        if self.offsets.len() >= self.keys_max && !self.offsets.contains_key(&hash) {
            return false;
        }
        self.offsets.insert(hash, offset);
        true
    }

    /// Returns the offset of the newest record with this key.
    pub fn newest(&self, key: &[u8]) -> Option<i64> {
        self.offsets.get(&self.hash(key)).copied()
    }

    fn hash(&self, key: &[u8]) -> KeyHash {
        let mut hasher = self.hasher;
        hasher.write(key);
        let hash = hasher.finish128();
        KeyHash(hash.h1, hash.h2)
    }
}
