//! Hand-made record batches, correct or wrong in one field, to send what no client would.

/// A record batch of format version 2. Every field can have a wrong value.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Format version; only 2 is current.
    pub magic: i8,
    /// Codec in the lowest three bits, then timestamp type, transactional and control.
    pub attributes: i16,
    /// Number of records minus one.
    pub last_offset_delta: i32,
    /// Milliseconds since 1970 of the first record.
    pub base_timestamp: i64,
    /// Milliseconds since 1970 of the newest record.
    pub max_timestamp: i64,
    /// Producer id, -1 without idempotence.
    pub producer_id: i64,
    /// Producer epoch, -1 without idempotence.
    pub producer_epoch: i16,
    /// Sequence number of the first record, -1 without idempotence.
    pub base_sequence: i32,
    /// The number of records that the header claims.
    pub count: i32,
    /// The records, compressed if `attributes` says so.
    pub payload: Vec<u8>,
    /// Added to the correct length in the header.
    pub length_off_by: i32,
    /// XORed with the correct checksum.
    pub crc_flip: u32,
}

impl Batch {
    /// A correct batch of uncompressed records without keys.
    #[must_use]
    pub fn of(values: &[&[u8]], timestamp_ms: i64) -> Self {
        let mut payload = Vec::new();
        for (i, value) in values.iter().enumerate() {
            payload.extend(record(i, None, Some(value)));
        }
        let count = i32::try_from(values.len()).unwrap_or(i32::MAX);
        Self {
            magic: 2,
            attributes: 0,
            last_offset_delta: count - 1,
            base_timestamp: timestamp_ms,
            max_timestamp: timestamp_ms,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            count,
            payload,
            length_off_by: 0,
            crc_flip: 0,
        }
    }

    /// The same batch, from an idempotent producer.
    #[must_use]
    pub fn from_producer(mut self, id: i64, epoch: i16, sequence: i32) -> Self {
        (self.producer_id, self.producer_epoch, self.base_sequence) = (id, epoch, sequence);
        self
    }

    /// The encoded batch. The checksum is correct unless `crc_flip` changes it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut covered = Vec::new();
        covered.extend(self.attributes.to_be_bytes());
        covered.extend(self.last_offset_delta.to_be_bytes());
        covered.extend(self.base_timestamp.to_be_bytes());
        covered.extend(self.max_timestamp.to_be_bytes());
        covered.extend(self.producer_id.to_be_bytes());
        covered.extend(self.producer_epoch.to_be_bytes());
        covered.extend(self.base_sequence.to_be_bytes());
        covered.extend(self.count.to_be_bytes());
        covered.extend(&self.payload);
        let mut batch = Vec::new();
        batch.extend(0_i64.to_be_bytes());
        // The length field counts everything after it: leader epoch, magic, checksum, and the bytes
        // that the checksum covers.
        let length = i32::try_from(covered.len() + 9).unwrap_or(i32::MAX);
        batch.extend(length.wrapping_add(self.length_off_by).to_be_bytes());
        batch.extend((-1_i32).to_be_bytes());
        batch.extend(self.magic.to_be_bytes());
        batch.extend((crc32c::crc32c(&covered) ^ self.crc_flip).to_be_bytes());
        batch.extend(covered);
        batch
    }
}

/// One record as it is in a batch, with the batch's first timestamp.
#[must_use]
pub fn record(offset_delta: usize, key: Option<&[u8]>, value: Option<&[u8]>) -> Vec<u8> {
    let mut body = vec![0, 0];
    varint(&mut body, i64::try_from(offset_delta).unwrap_or(i64::MAX));
    for part in [key, value] {
        match part {
            Some(bytes) => {
                varint(&mut body, i64::try_from(bytes.len()).unwrap_or(i64::MAX));
                body.extend(bytes);
            }
            None => varint(&mut body, -1),
        }
    }
    varint(&mut body, 0);
    let mut record = Vec::new();
    varint(&mut record, i64::try_from(body.len()).unwrap_or(i64::MAX));
    record.extend(body);
    record
}

/// Zigzag encoding, seven bits a byte.
fn varint(to: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        to.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    to.push(rest as u8);
}
