//! The command line of the operator.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use clap::Parser;
use weir_telemetry::logs::LogFormat;

use super::objects::Monitoring;

/// The Weir operator: it runs Kafka clusters from `KafkaCluster` resources and topics from `Topic`
/// resources, and is the controller of each cluster.
#[derive(Clone, Debug, Parser)]
#[command(name = "weir-operator", version, max_term_width = 110)]
pub struct Args {
    /// The address where brokers reach the controller; `[::]` is all addresses of this machine,
    /// IPv6 and IPv4.
    #[arg(
        long,
        env = "WEIR_GRPC_LISTEN",
        default_value = "[::]:9190",
        value_name = "ADDRESS:PORT"
    )]
    pub grpc_listen: SocketAddr,

    /// The address of /healthz, /readyz and /metrics, as --grpc-listen.
    #[arg(
        long,
        env = "WEIR_HTTP_LISTEN",
        default_value = "[::]:8080",
        value_name = "ADDRESS:PORT"
    )]
    pub http_listen: SocketAddr,

    /// The namespaces to watch, separated by commas; "*" for all, empty for the operator's own.
    #[arg(long, env = "WEIR_WATCH_NAMESPACES", default_value = "", value_name = "NAMESPACES")]
    pub watch_namespaces: String,

    /// The image of the brokers of new clusters whose resource names none.
    #[arg(long, env = "WEIR_BROKER_IMAGE", value_name = "IMAGE")]
    pub broker_image: String,

    /// The controller's address for brokers: a headless service in front of all replicas of the
    /// operator.
    #[arg(long, env = "WEIR_CONTROLLER_ADDRESS", value_name = "HOST:PORT")]
    pub controller_address: String,

    /// The name of the Lease that decides which replica leads.
    #[arg(long, env = "WEIR_LEASE_NAME", default_value = "weir-operator")]
    pub lease_name: String,

    /// The operator's own Deployment; the Lease is deleted with it.
    #[arg(long, env = "WEIR_DEPLOYMENT", value_name = "NAME")]
    pub deployment: Option<String>,

    /// The operator's own namespace, with the Lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default", value_name = "NAMESPACE")]
    pub namespace: String,

    /// The name of this replica, for the Lease.
    #[arg(long, env = "POD_NAME", default_value = "weir-operator")]
    pub name: String,

    /// Labels of the brokers' PodMonitors, by which a Prometheus selects them: NAME=VALUE,
    /// separated by commas.
    #[arg(long, env = "WEIR_POD_MONITOR_LABELS", default_value = "", value_parser = labels_of, value_name = "LABELS")]
    pub pod_monitor_labels: Labels,

    /// How often Prometheus scrapes brokers, such as 30s; empty for its own default.
    #[arg(long, env = "WEIR_POD_MONITOR_INTERVAL", default_value = "", value_name = "DURATION")]
    pub pod_monitor_interval: String,

    /// The format of log lines: "text" for people, "json" for machines.
    #[arg(long, env = "WEIR_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// Labels by name.
pub type Labels = BTreeMap<String, String>;

fn labels_of(text: &str) -> Result<Labels, String> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| format!("{pair:?} is not of the form NAME=VALUE"))?;
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}

/// The namespaces that are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All namespaces.
    All,
    /// These.
    Some(Vec<String>),
}

impl Scope {
    /// Whether a namespace is watched.
    pub fn has(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Some(namespaces) => namespaces.iter().any(|one| one == namespace),
        }
    }
}

impl Args {
    /// Labels and interval of the brokers' PodMonitors.
    pub(super) fn monitoring(&self) -> Monitoring {
        Monitoring {
            labels: self.pod_monitor_labels.clone(),
            interval: Some(self.pod_monitor_interval.clone())
                .filter(|interval| !interval.is_empty()),
        }
    }

    /// The namespaces that are watched.
    pub fn scope(&self) -> Scope {
        let names = self.watch_namespaces.split(',').map(str::trim).filter(|name| !name.is_empty());
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort();
        names.dedup();
        if names.iter().any(|name| name == "*") {
            Scope::All
        } else if names.is_empty() {
            Scope::Some(vec![self.namespace.clone()])
        } else {
            Scope::Some(names)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(flags: [&str; 2]) -> Result<Args, clap::Error> {
        let base = [
            "weir-operator",
            "--broker-image",
            "i",
            "--controller-address",
            "h:1",
            "--namespace",
            "own",
        ];
        Args::try_parse_from(base.into_iter().chain(flags))
    }

    #[test]
    fn labels_are_pairs() {
        let labels =
            |text: &str| args(["--pod-monitor-labels", text]).map(|args| args.monitoring().labels);
        assert_eq!(labels("").unwrap(), Labels::new());
        let two = [("release", "prometheus"), ("example.com/team", "")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(labels("release=prometheus, example.com/team=").unwrap(), two.into());
        assert!(labels("release").unwrap_err().to_string().contains("NAME=VALUE"));
        assert_eq!(args(["--pod-monitor-interval", ""]).unwrap().monitoring().interval, None);
        assert_eq!(
            args(["--pod-monitor-interval", "5s"]).unwrap().monitoring().interval.as_deref(),
            Some("5s")
        );
    }

    #[test]
    fn namespaces_are_a_list_or_all() {
        let scope = |text: &str| args(["--watch-namespaces", text]).unwrap().scope();
        let some = |names: &[&str]| Scope::Some(names.iter().map(ToString::to_string).collect());
        assert_eq!(scope(""), some(&["own"]));
        assert_eq!(scope("b, a,,b"), some(&["a", "b"]));
        assert_eq!(scope("a,*"), Scope::All);
        assert!(scope("a,*").has("b") && scope("a,b").has("b") && !scope("a").has("b"));
    }
}
