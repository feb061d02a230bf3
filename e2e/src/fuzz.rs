//! Valid requests of every API and version, and mutations of a few of their bytes.

use crate::batch::Batch;
use crate::bystander::now_ms;
use crate::schema::{Field, Request, Versions};

/// A generator of pseudo-random numbers (SplitMix64): the same seed gives the same requests.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.draw() % u64::try_from(bound.max(1)).unwrap_or(1)).unwrap_or(0)
    }

    /// True once in `times` calls, on average.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        from.get(self.below(from.len())).cloned()
    }
}

/// The broker's objects that requests may name.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// Topics with their ids, or zeros.
    pub topics: Vec<(String, [u8; 16])>,
    /// Groups.
    pub groups: Vec<String>,
    /// Transactional ids.
    pub transactions: Vec<String>,
    /// Member ids that a broker has assigned.
    pub members: Vec<String>,
}

/// Writes the body of one request.
#[derive(Debug)]
pub struct Writer<'a> {
    /// The source of randomness.
    pub random: &'a mut Random,
    /// The names to use.
    pub world: &'a World,
    version: i16,
    flexible: bool,
    out: Vec<u8>,
}

/// A whole request frame of this version, including its length.
pub fn frame(
    random: &mut Random,
    world: &World,
    request: &Request,
    version: i16,
    correlation: i32,
) -> Vec<u8> {
    let flexible = request.flexible.has(version);
    let mut out = Vec::new();
    out.extend(request.key.to_be_bytes());
    out.extend(version.to_be_bytes());
    out.extend(correlation.to_be_bytes());
    out.extend([0, 4]);
    out.extend(b"fuzz");
    if flexible {
        out.push(0);
    }
    let mut writer = Writer { random, world, version, flexible, out };
    writer.fields(&request.fields);
    framed(&writer.out)
}

/// A frame around these bytes.
#[must_use]
pub fn framed(body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len()).unwrap_or(i32::MAX);
    [&length.to_be_bytes(), body].concat()
}

/// The same frame with some bytes changed, cut off, doubled or inserted after the API key, the
/// version and the correlation id. Its length is correct.
pub fn mutate(random: &mut Random, frame: &[u8]) -> Vec<u8> {
    let mut body = frame.get(4..).unwrap_or_default().to_vec();
    for _ in 0..=random.below(3) {
        if body.len() < 10 {
            break;
        }
        let at = 8 + random.below(body.len() - 8);
        let length = random.below(64).min(body.len() - at);
        match random.below(6) {
            0 => body[at] ^= 1 << random.below(8),
            1 => body.truncate(at),
            2 => {
                let piece = body[at..at + length].to_vec();
                body.splice(at..at, piece);
            }
            3 => drop(body.drain(at..at + length)),
            4 => {
                let noise: Vec<u8> = (0..length).map(|_| random.draw().to_be_bytes()[0]).collect();
                body.splice(at..at, noise);
            }
            _ => {
                let edges = [0, 1, -1, i32::MAX, i32::MIN, 0x7fff, 0x10000];
                let edge = random.pick(&edges).unwrap_or_default().to_be_bytes();
                body.iter_mut().skip(at).zip(edge).for_each(|(byte, edge)| *byte = edge);
            }
        }
    }
    framed(&body)
}

impl Writer<'_> {
    fn fields(&mut self, fields: &[Field]) {
        let carried: Vec<_> =
            fields.iter().filter(|field| field.versions.has(self.version)).collect();
        for field in carried.iter().filter(|field| field.tag.is_none()) {
            self.value(field);
        }
        if !self.flexible {
            return;
        }
        let mut tagged: Vec<_> = carried.into_iter().filter(|field| field.tag.is_some()).collect();
        tagged.retain(|_| self.random.once_in(2));
        tagged.sort_by_key(|field| field.tag);
        self.uvarint(tagged.len());
        for field in tagged {
            let outer = std::mem::take(&mut self.out);
            self.value(field);
            let value = std::mem::replace(&mut self.out, outer);
            self.uvarint(usize::try_from(field.tag.unwrap_or_default()).unwrap_or_default());
            self.uvarint(value.len());
            self.out.extend(value);
        }
    }

    fn value(&mut self, field: &Field) {
        let is_null = field.nullable.has(self.version) && self.random.once_in(4);
        if let Some(element) = field.kind.strip_prefix("[]") {
            if is_null {
                return self.length(None, 4);
            }
            // Sometimes many elements.
            let count = if self.random.once_in(200) { 3000 } else { self.random.below(4) };
            self.length(Some(count), 4);
            let element =
                Field { kind: element.to_owned(), nullable: Versions::none(), ..field.clone() };
            (0..count).for_each(|_| self.single(&element, false));
            return;
        }
        self.single(field, is_null);
    }

    fn single(&mut self, field: &Field, is_null: bool) {
        match field.kind.as_str() {
            "bool" => self.out.push(u8::from(self.random.once_in(2))),
            "int8" => {
                let value = self.number(field);
                self.out.extend((value as i8).to_be_bytes());
            }
            "int16" | "uint16" => {
                let value = self.number(field);
                self.out.extend((value as i16).to_be_bytes());
            }
            "int32" | "uint32" => {
                let value = self.number(field);
                self.out.extend((value as i32).to_be_bytes());
            }
            "int64" | "float64" => {
                let value = self.number(field);
                self.out.extend(value.to_be_bytes());
            }
            "uuid" => {
                let id = self.random.pick(&self.world.topics).map_or([0; 16], |topic| topic.1);
                self.out.extend(id);
            }
            "string" | "bytes" | "records" if is_null => {
                self.length(None, if field.kind == "string" { 2 } else { 4 })
            }
            "string" => {
                let text = self.text(field);
                self.length(Some(text.len()), 2);
                self.out.extend(text.as_bytes());
            }
            "bytes" | "records" => {
                let bytes = self.bytes(field);
                self.length(Some(bytes.len()), 4);
                self.out.extend(bytes);
            }
            _ => {
                if field.nullable.has(self.version) && !field.kind.is_empty() && field.tag.is_none()
                {
                    // A nullable struct begins with a byte that says whether it is there.
                    self.out.push(if is_null { 0xff } else { 1 });
                }
                if !is_null {
                    self.fields(&field.fields);
                }
            }
        }
    }

    /// A plausible number for such a field, mostly a small one.
    fn number(&mut self, field: &Field) -> i64 {
        if self.random.once_in(20) {
            let edges = [0, 1, -1, i64::MAX, i64::MIN, i64::from(i32::MAX), i64::from(i16::MAX)];
            return self.random.pick(&edges).unwrap_or_default();
        }
        let few: &[i64] = match field.name.as_str() {
            "ReplicaId" | "BrokerEpoch" | "ReplicaEpoch" => &[-1, -1, -1, 0, 1],
            "MaxWaitMs" | "TimeoutMs" | "timeoutMs" => &[0, 50, 200],
            "SessionTimeoutMs" | "RebalanceTimeoutMs" | "TransactionTimeoutMs" => {
                &[300, 6000, 10_000]
            }
            "MaxBytes" | "PartitionMaxBytes" => &[0, 1, 1000, 1 << 20],
            "MinBytes" => &[0, 1],
            "Acks" => &[-1, 1, 1, 0],
            "NumPartitions" | "Count" => &[-1, 1, 2, 3],
            "ReplicationFactor" => &[-1, 1],
            "ResourceType" => &[2, 4, 8, 16, 32],
            "Timestamp" => &[-1, -2, -3, 0, 1_700_000_000_000],
            "CurrentLeaderEpoch" | "LastFetchedEpoch" | "LeaderEpoch" | "CommittedLeaderEpoch" => {
                &[-1, 0, 0, 1]
            }
            _ => &[0, 0, 1, 2, -1, 3, 100],
        };
        self.random.pick(few).unwrap_or_default()
    }

    fn text(&mut self, field: &Field) -> String {
        if self.random.once_in(30) {
            let length = [0, 1, 127, 128, 255, 32_767][self.random.below(6)];
            return (0..length).map(|_| if self.random.once_in(50) { '\0' } else { 'x' }).collect();
        }
        let topic =
            |writer: &mut Self| writer.random.pick(&writer.world.topics).map(|topic| topic.0);
        let picked = match (field.entity.as_str(), field.name.as_str()) {
            ("topicName", _) | (_, "ResourceName" | "Topic" | "TopicName") => topic(self),
            ("groupId", _) => self.random.pick(&self.world.groups),
            ("transactionalId", _) => self.random.pick(&self.world.transactions),
            (_, "MemberId") => self.random.pick(&self.world.members),
            (_, "Key" | "CoordinatorKeys") => {
                let keys = [&self.world.groups[..], &self.world.transactions[..]].concat();
                self.random.pick(&keys)
            }
            (_, "ProtocolType") => Some("consumer".to_owned()),
            (_, "ProtocolName" | "ServerAssignor") => Some("range".to_owned()),
            ("configName", _) | (_, "ConfigName") => self
                .random
                .pick(&["max.message.bytes", "segment.bytes", "retention.ms"])
                .map(str::to_owned),
            (_, "Value") => self.random.pick(&["1000000", "-1", "x"]).map(str::to_owned),
            _ => None,
        };
        let any = ["", "a", "range", "consumer", "fuzz-new", "1.0", "Empty"];
        picked.unwrap_or_else(|| self.random.pick(&any).unwrap_or_default().to_owned())
    }

    fn bytes(&mut self, field: &Field) -> Vec<u8> {
        if field.kind == "records" && !self.random.once_in(4) {
            let batch = Batch::of(&[b"fuzz"], now_ms());
            if self.random.once_in(2) {
                return batch.encode();
            }
            let [producer, epoch, sequence] = [4, 2, 3].map(|few| self.random.below(few));
            let number = |small: usize| i16::try_from(small).unwrap_or_default();
            let batch = batch.from_producer(
                number(producer).into(),
                number(epoch),
                number(sequence).into(),
            );
            // A batch of a transaction, sometimes a control batch, which only a coordinator may
            // write.
            let attributes =
                (number(self.random.below(2)) << 4) | (i16::from(self.random.once_in(8)) << 5);
            return Batch { attributes, ..batch }.encode();
        }
        let length = [0, 1, 6, 61, 300][self.random.below(5)];
        (0..length).map(|_| self.random.draw().to_be_bytes()[0]).collect()
    }

    /// Writes a length, or null, in the version's form; `size` is its number of bytes in the
    /// inflexible form.
    fn length(&mut self, length: Option<usize>, size: usize) {
        if self.flexible {
            self.uvarint(length.map_or(0, |length| length + 1));
        } else if size == 2 {
            self.out.extend(
                length.map_or(-1, |length| i16::try_from(length).unwrap_or(i16::MAX)).to_be_bytes(),
            );
        } else {
            self.out.extend(
                length.map_or(-1, |length| i32::try_from(length).unwrap_or(i32::MAX)).to_be_bytes(),
            );
        }
    }

    fn uvarint(&mut self, mut value: usize) {
        while value > 0x7f {
            self.out.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
            value >>= 7;
        }
        self.out.push(u8::try_from(value).unwrap_or_default());
    }
}
