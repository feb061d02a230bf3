//! The command line of the operator.

use std::net::SocketAddr;

use clap::Parser;
use weir_telemetry::logs::LogFormat;

/// The Weir operator: it makes Kafka clusters of `KafkaCluster` resources, topics of `Topic` resources, and is the controller of each cluster.
#[derive(Clone, Debug, Parser)]
#[command(name = "weir-operator", version, max_term_width = 110)]
pub struct Args {
    /// Where brokers reach the controller.
    #[arg(long, env = "WEIR_GRPC_LISTEN", default_value = "0.0.0.0:9190", value_name = "ADDRESS:PORT")]
    pub grpc_listen: SocketAddr,

    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, env = "WEIR_HTTP_LISTEN", default_value = "0.0.0.0:8080", value_name = "ADDRESS:PORT")]
    pub http_listen: SocketAddr,

    /// The namespaces that are looked after, with commas between; "*" for all, nothing for the operator's own.
    #[arg(long, env = "WEIR_WATCH_NAMESPACES", default_value = "", value_name = "NAMESPACES")]
    pub watch_namespaces: String,

    /// The image of the brokers of new clusters whose resource names none.
    #[arg(long, env = "WEIR_BROKER_IMAGE", value_name = "IMAGE")]
    pub broker_image: String,

    /// What brokers are told to connect to: a headless service in front of all replicas of the operator.
    #[arg(long, env = "WEIR_CONTROLLER_ADDRESS", value_name = "HOST:PORT")]
    pub controller_address: String,

    /// The name of the Lease that decides which replica leads.
    #[arg(long, env = "WEIR_LEASE_NAME", default_value = "weir-operator")]
    pub lease_name: String,

    /// The operator's own namespace, where the Lease lies.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default", value_name = "NAMESPACE")]
    pub namespace: String,

    /// The name of this replica, for the Lease.
    #[arg(long, env = "POD_NAME", default_value = "weir-operator")]
    pub name: String,

    /// How log lines look: "text" for people, "json" for machines.
    #[arg(long, env = "WEIR_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// The namespaces that are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every one.
    All,
    /// These.
    Some(Vec<String>),
}

impl Args {
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

    #[test]
    fn namespaces_are_a_list_or_all() {
        let scope = |text: &str| {
            let base = [
                "weir-operator",
                "--broker-image",
                "i",
                "--controller-address",
                "h:1",
                "--namespace",
                "own",
            ];
            Args::try_parse_from(base.into_iter().chain(["--watch-namespaces", text]))
                .unwrap()
                .scope()
        };
        let some = |names: &[&str]| Scope::Some(names.iter().map(ToString::to_string).collect());
        assert_eq!(scope(""), some(&["own"]));
        assert_eq!(scope("b, a,,b"), some(&["a", "b"]));
        assert_eq!(scope("a,*"), Scope::All);
    }
}
