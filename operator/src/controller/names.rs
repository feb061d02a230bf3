//! Derived `metadata.name`s for topics that Kafka clients create.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

/// The most characters of a topic's name in a derived `metadata.name`; with the hash appended it is
/// still a valid Kubernetes name.
const READABLE_LENGTH_MAX: usize = 200;

/// The `metadata.name` of a topic that a client creates: its name if Kubernetes allows it, else a
/// readable part of it and a hash. `taken` says which names are in use, so two topics never share
/// one.
pub fn resource_name(topic: &str, taken: impl Fn(&str) -> bool) -> String {
    if is_subdomain(topic) && !taken(topic) {
        return topic.to_owned();
    }
    let readable: String = topic
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .take(READABLE_LENGTH_MAX)
        .collect();
    let readable = readable.trim_matches('-');
    let readable = if readable.is_empty() { "topic" } else { readable };
    let mut hash = fnv1a(0xcbf2_9ce4_8422_2325, topic.as_bytes());
    loop {
        let name = format!("{readable}-{hash:016x}");
        if !taken(&name) {
            return name;
        }
        hash = fnv1a(hash, b"again");
    }
}

/// Whether a name is an RFC 1123 subdomain, as Kubernetes requires of names.
pub fn is_subdomain(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= 253
        && name.split('.').all(|label| {
            let (first, last) = (label.bytes().next(), label.bytes().next_back());
            first.is_some_and(inner)
                && last.is_some_and(inner)
                && label.bytes().all(|byte| inner(byte) || byte == b'-')
        })
}

fn fnv1a(start: u64, bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
