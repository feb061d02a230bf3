//! `HOST:PORT` as text, with an IPv6 address in brackets. Everywhere else, in messages too, a host
//! is a field of its own without brackets, because clients cannot connect to a host that has some.
//! Apache Kafka removes them likewise (`SocketServerConfigs.URI_PARSE_REGEXP`).

use std::net::Ipv6Addr;

/// Joins a host and a port into the text that [`split`] reads.
pub fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The host, without brackets, and the port; `None` if the text does not have this form. An IPv6
/// address needs brackets, because its end would be ambiguous without them. Nothing else may have
/// them.
pub fn split(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(host) => host.strip_suffix(']').filter(|host| host.parse::<Ipv6Addr>().is_ok())?,
        None => host,
    };
    let is_bare = text.starts_with('[') || !host.contains([':', ']']);
    // `u16::parse` would accept a sign.
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
            // An IPv6 address without brackets is ambiguous.
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
