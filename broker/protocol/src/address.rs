//! `HOST:PORT` as text, with an IPv6 address in brackets. In messages, and everywhere else, a host
//! stands for itself and without them, as in Apache Kafka (`SocketServerConfigs.URI_PARSE_REGEXP`
//! there takes the brackets off): clients could not connect to a host that has some.

use std::net::Ipv6Addr;

/// A host and a port as one text: what [`split`] takes apart.
pub fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The host, without brackets, and the port. `None` where the text is not of this form: an IPv6
/// address without brackets could end anywhere, and nothing but one stands in them.
pub fn split(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(host) => host.strip_suffix(']').filter(|host| host.parse::<Ipv6Addr>().is_ok())?,
        None => host,
    };
    let is_bare = text.starts_with('[') || !host.contains([':', ']']);
    // `u16` would take a sign.
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    (is_bare && is_number && !host.is_empty()).then_some((host, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_stands_in_brackets() {
        let cases = [
            ("k.example:9092", Some(("k.example", 9092))),
            ("192.0.2.1:1", Some(("192.0.2.1", 1))),
            ("[::1]:9092", Some(("::1", 9092))),
            ("[2001:db8::7]:65535", Some(("2001:db8::7", 65_535))),
            // Where it ends nobody can say.
            ("::1:9092", None),
            ("2001:db8::7", None),
            ("[::1]", None),
            ("[::1]9092", None),
            ("[::1:9092", None),
            ("::1]:9092", None),
            ("[k.example]:9092", None),
            ("[]:9092", None),
            (":9092", None),
            ("k.example", None),
            ("k.example:", None),
            ("k.example:+1", None),
            ("k.example:65536", None),
            ("", None),
        ];
        for (text, parts) in cases {
            assert_eq!(split(text), parts, "{text:?}");
            if let Some((host, port)) = parts {
                assert_eq!(join(host, port), text);
            }
        }
    }
}
