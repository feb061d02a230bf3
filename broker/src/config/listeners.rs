//! The listeners of the command line.

use std::fmt;
use std::path::PathBuf;

use anyhow::Context as _;
use weir_protocol::address;
use weir_protocol::controller::INTERNAL_LISTENER;
use weir_security::principal::MappingRules;
use weir_security::scram::Mechanism;

use super::args::Args;

/// A listener of this broker: the address to bind, and the address for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Its name.
    pub name: String,
    /// The host and port to bind.
    pub bind: (String, u16),
    /// The host and port for clients; port 0 stands for the bound port.
    pub advertised: (String, u16),
    /// Who may connect, and how.
    pub security: ListenerSecurity,
    /// The SASL mechanisms by which clients log in; without any they do not.
    pub sasl: Vec<String>,
}

/// Who may connect to a listener, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerSecurity {
    /// Anybody, over plain TCP.
    Plain,
    /// Clients, over TLS.
    Tls(TlsConfig),
    /// Brokers and the controller, by their certificates.
    Nodes,
}

/// TLS on a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// The directory of its certificate, and of the CAs of clients.
    pub folder: PathBuf,
    /// Whether clients show a certificate.
    pub client_auth: ClientAuth,
    /// How a subject becomes a name: valid rules.
    pub principal_rules: String,
}

/// Whether clients show a certificate (`ssl.client.auth`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    #[default]
    None,
    /// They may. One that is not good is refused all the same.
    Requested,
    /// They must.
    Required,
}

impl fmt::Display for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Requested => "requested",
            Self::Required => "required",
        })
    }
}

/// The listeners of a command line.
///
/// # Errors
/// One that is invalid or given twice, or an advertised address or TLS without a listener.
pub(super) fn listeners(args: &Args) -> anyhow::Result<Vec<ListenerConfig>> {
    let advertised = args
        .advertised_listeners
        .iter()
        .map(|text| parse_listener(text))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut listeners: Vec<ListenerConfig> = Vec::new();
    for text in &args.listeners {
        let (name, bind) = parse_listener(text)?;
        anyhow::ensure!(
            listeners.iter().all(|other| other.name != name),
            "--listener {name}: the name is given twice"
        );
        let advertised = advertised
            .iter()
            .find(|(other, _)| *other == name)
            .map_or_else(|| bind.clone(), |(_, address)| address.clone());
        let security = match name == INTERNAL_LISTENER && args.identity.is_some() {
            true => ListenerSecurity::Nodes,
            false => ListenerSecurity::Plain,
        };
        listeners.push(ListenerConfig { name, bind, advertised, security, sasl: Vec::new() });
    }
    check_internal(&listeners, args.identity.is_some())?;
    set_tls(&mut listeners, args)?;
    set_sasl(&mut listeners, args)?;
    if let Some((name, _)) =
        advertised.iter().find(|(name, _)| listeners.iter().all(|listener| listener.name != *name))
    {
        anyhow::bail!("--advertised-listener {name}: there is no --listener of that name");
    }
    Ok(listeners)
}

impl ListenerConfig {
    /// The security protocol in Kafka's words.
    pub fn security_protocol(&self) -> &'static str {
        match (&self.security, self.sasl.is_empty()) {
            (ListenerSecurity::Plain, true) => "PLAINTEXT",
            (ListenerSecurity::Plain, false) => "SASL_PLAINTEXT",
            (ListenerSecurity::Tls(_) | ListenerSecurity::Nodes, true) => "SSL",
            (ListenerSecurity::Tls(_) | ListenerSecurity::Nodes, false) => "SASL_SSL",
        }
    }

    /// Whether clients speak TLS there.
    pub fn has_tls(&self) -> bool {
        matches!(self.security, ListenerSecurity::Tls(_))
    }
}

/// Checks that the internal listener and the identity come together, behind a listener for clients.
fn check_internal(listeners: &[ListenerConfig], has_identity: bool) -> anyhow::Result<()> {
    let at = listeners.iter().position(|listener| listener.name == INTERNAL_LISTENER);
    match (at, has_identity) {
        (None, false) | (Some(1..), true) => Ok(()),
        (Some(0), true) => {
            anyhow::bail!("--listener {INTERNAL_LISTENER}: the first listener is for clients")
        }
        (Some(_), false) => anyhow::bail!(
            "--listener {INTERNAL_LISTENER}: it is for brokers with certificates, so it needs --identity"
        ),
        (None, true) => anyhow::bail!(
            "--identity: there is no --listener {INTERNAL_LISTENER}, where brokers use it"
        ),
    }
}

/// Sets the TLS of the listeners that the command line gives one.
fn set_tls(listeners: &mut [ListenerConfig], args: &Args) -> anyhow::Result<()> {
    for text in &args.tls {
        let (at, folder) = of_listener("--tls", text, listeners)?;
        anyhow::ensure!(
            at > 0 || args.identity.is_some(),
            "--tls {text}: brokers without --identity use the first listener among themselves, and without TLS"
        );
        anyhow::ensure!(
            listeners[at].security != ListenerSecurity::Nodes,
            "--tls {text}: the listener has the certificate of --identity"
        );
        let (folder, client_auth) = (PathBuf::from(folder), ClientAuth::None);
        let principal_rules = "DEFAULT".to_owned();
        let tls = TlsConfig { folder, client_auth, principal_rules };
        listeners[at].security = ListenerSecurity::Tls(tls);
    }
    for text in &args.tls_client_auth {
        tls_of("--tls-client-auth", text, listeners, |tls, auth| {
            tls.client_auth = match auth {
                "none" => ClientAuth::None,
                "requested" => ClientAuth::Requested,
                "required" => ClientAuth::Required,
                _ => anyhow::bail!("it is none, requested or required"),
            };
            Ok(())
        })?;
    }
    for text in &args.tls_principal_rules {
        tls_of("--tls-principal-rules", text, listeners, |tls, rules| {
            MappingRules::parse(rules)?;
            tls.principal_rules = rules.to_owned();
            Ok(())
        })?;
    }
    Ok(())
}

/// Whether a listener can have the SASL mechanism of this name. Case matters.
fn is_mechanism(name: &str) -> bool {
    name == "PLAIN" || Mechanism::from_name(name).is_some()
}

/// Sets the mechanisms of the listeners that the command line gives some.
fn set_sasl(listeners: &mut [ListenerConfig], args: &Args) -> anyhow::Result<()> {
    for text in &args.sasl {
        let (at, names) = of_listener("--sasl", text, listeners)?;
        anyhow::ensure!(
            at > 0 || args.identity.is_some(),
            "--sasl {text}: brokers without --identity use the first listener among themselves, and do not log in"
        );
        anyhow::ensure!(
            listeners[at].security != ListenerSecurity::Nodes,
            "--sasl {text}: the listener is for brokers, which have certificates"
        );
        let names: Vec<String> = names.split(',').map(str::to_owned).collect();
        for name in &names {
            anyhow::ensure!(
                is_mechanism(name),
                "--sasl {text}: {name:?} is not PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
            );
        }
        listeners[at].sasl = names;
    }
    Ok(())
}

/// Sets a part of the TLS of the listener that a flag names.
fn tls_of(
    flag: &str,
    text: &str,
    listeners: &mut [ListenerConfig],
    set: impl FnOnce(&mut TlsConfig, &str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (at, value) = of_listener(flag, text, listeners)?;
    let ListenerSecurity::Tls(tls) = &mut listeners[at].security else {
        anyhow::bail!("{flag} {text}: the listener has no --tls");
    };
    set(tls, value).with_context(|| format!("{flag} {text}"))
}

/// The index of the listener, and the value, in `LISTENER=VALUE`.
fn of_listener<'a>(
    flag: &str,
    text: &'a str,
    listeners: &[ListenerConfig],
) -> anyhow::Result<(usize, &'a str)> {
    let parts = text.split_once('=').filter(|(_, value)| !value.is_empty());
    let (name, value) = parts.with_context(|| format!("{flag} {text}: it is LISTENER=VALUE"))?;
    let at = listeners.iter().position(|listener| listener.name == name);
    let at = at.with_context(|| format!("{flag} {text}: there is no --listener of that name"))?;
    Ok((at, value))
}

/// Parses `NAME://HOST:PORT`, with an IPv6 address in brackets.
fn parse_listener(text: &str) -> anyhow::Result<(String, (String, u16))> {
    let parsed = text.split_once("://").and_then(|(name, address)| {
        let (host, port) = address::split(address)?;
        (!name.is_empty()).then(|| (name.to_owned(), (host.to_owned(), port)))
    });
    parsed.ok_or_else(|| anyhow::anyhow!("listener {text:?} is not of the form NAME://HOST:PORT, with an IPv6 address in brackets"))
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::super::tests::config;
    use super::*;

    #[test]
    fn listeners_are_checked_once() {
        let two = config(&[
            "--listener",
            "IN://[::1]:9092,OUT://0.0.0.0:9093",
            "--advertised-listener",
            "OUT://k.example:1",
        ])
        .unwrap();
        assert_eq!(two.listeners[0].bind, ("::1".to_owned(), 9092));
        assert_eq!(two.listeners[0].advertised, two.listeners[0].bind);
        assert_eq!(two.listeners[1].advertised, ("k.example".to_owned(), 1));
        for wrong in [
            "PLAINTEXT",
            "://a:1",
            "A://:1",
            "A://a",
            "A://a:99999",
            "A://a:1,A://b:2",
            "A://::1:9092",
            "A://[a]:1",
        ] {
            assert!(config(&["--listener", wrong]).is_err(), "{wrong}");
        }
        assert!(config(&["--advertised-listener", "OTHER://a:1"]).is_err());
        assert!(!two.listeners.iter().any(ListenerConfig::has_tls));
        assert!(config(&["--id=-1"]).is_err());
    }

    #[test]
    fn sasl_belongs_to_a_listener_for_clients_that_is_not_the_first() {
        let listeners = ["--listener", "IN://[::]:1,OUT://[::]:2", "--tls", "OUT=d"];
        let with = |more: &[&str]| config(&[&listeners, more].concat());
        let own = with(&["--sasl", "OUT=SCRAM-SHA-512,PLAIN"]).unwrap();
        assert_eq!(own.listeners[1].sasl, ["SCRAM-SHA-512", "PLAIN"]);
        let protocols = |config: &Config| -> Vec<&'static str> {
            config.listeners.iter().map(ListenerConfig::security_protocol).collect()
        };
        assert_eq!(protocols(&own), ["PLAINTEXT", "SASL_SSL"]);
        let plain = ["--listener", "IN://[::]:1,OUT://[::]:2", "--sasl", "OUT=SCRAM-SHA-256"];
        assert_eq!(protocols(&config(&plain).unwrap()), ["PLAINTEXT", "SASL_PLAINTEXT"]);
        for wrong in ["IN=PLAIN", "OUT=plain", "OUT=PLAIN,", "OUT=GSSAPI", "OUT=", "X=PLAIN"] {
            assert!(with(&["--sasl", wrong]).is_err(), "{wrong}");
        }
        let certified = ["--listener", "A://[::]:1,WEIR-INTERNAL://[::]:2", "--identity", "i"];
        let with = |more: &[&str]| config(&[&certified, more].concat());
        assert!(with(&["--sasl", "A=PLAIN"]).is_ok());
        assert!(with(&["--sasl", "WEIR-INTERNAL=PLAIN"]).is_err());
    }

    fn tls_at(config: &Config, at: usize) -> TlsConfig {
        match &config.listeners[at].security {
            ListenerSecurity::Tls(tls) => tls.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_identity_has_its_listener_and_the_first_one_may_have_tls_then() {
        let listeners = ["--listener", "A://[::]:1,WEIR-INTERNAL://[::]:2"];
        let identity = ["--identity", "i"];
        let with = |more: &[&[&str]]| config(&[&[&listeners[..]], more].concat().concat());
        let own = with(&[&identity, &["--tls", "A=d"]]).unwrap();
        assert_eq!(own.listeners[1].security, ListenerSecurity::Nodes);
        assert_eq!((tls_at(&own, 0).folder, own.identity), ("d".into(), Some("i".into())));
        assert!(with(&[]).is_err(), "a listener that nobody guards");
        assert!(with(&[&identity, &["--tls", "WEIR-INTERNAL=d"]]).is_err());
        assert!(config(&identity).is_err());
        let first = ["--listener", "WEIR-INTERNAL://[::]:2,A://[::]:1"];
        assert!(config(&[&first[..], &identity].concat()).is_err());
    }

    #[test]
    fn tls_belongs_to_a_listener_that_is_not_the_first() {
        let listeners = ["--listener", "IN://[::]:1,OUT://[::]:2", "--tls", "OUT=d=e"];
        let with = |more: &[&str]| config(&[&listeners, more].concat());
        let plain = with(&[]).unwrap();
        let tls = tls_at(&plain, 1);
        assert_eq!((tls.folder, tls.client_auth), ("d=e".into(), ClientAuth::None));
        assert!(!plain.listeners[0].has_tls() && tls.principal_rules == "DEFAULT");
        assert!(plain.connections_max < config(&[]).unwrap().connections_max);
        let rules = "OUT=RULE:^CN=(.*?),.*$/$1/,DEFAULT";
        let all = ["--tls-client-auth", "OUT=required", "--tls-principal-rules", rules];
        let tls = tls_at(&with(&all).unwrap(), 1);
        assert_eq!(tls.client_auth, ClientAuth::Required);
        assert_eq!(format!("OUT={}", tls.principal_rules), rules);
        let wrong: [&[&str]; 8] = [
            &["--tls", "IN=d"],
            &["--tls", "OTHER=d"],
            &["--tls", "OUT="],
            &["--tls", "OUT"],
            &["--tls-client-auth", "IN=required"],
            &["--tls-client-auth", "OUT=always"],
            &["--tls-principal-rules", "OUT=RULE:(/x/"],
            &["--tls-principal-rules", "IN=DEFAULT"],
        ];
        for more in wrong {
            assert!(with(more).is_err(), "{more:?}");
        }
    }
}
