//! Log lines on standard error, one per event.
//!
//! The owner of the process calls it once. Standard output stays free for the output of commands.

use std::io;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line of text for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The environment variable with the log filter, for instance `info` or
/// `info,weir_broker::net=debug`.
pub const LEVEL_VARIABLE: &str = "WEIR_LOG";

/// Starts logging in `format` with the filter in [`LEVEL_VARIABLE`]; `info` if that is not set.
/// Times are RFC 3339 in UTC. From then on panics are logged too.
///
/// # Errors
/// When the filter is invalid, or the process logs already.
pub fn init(format: LogFormat) -> anyhow::Result<()> {
    let directives = std::env::var(LEVEL_VARIABLE).unwrap_or_default();
    let filter = filter(&directives).with_context(|| format!("{LEVEL_VARIABLE}={directives}"))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_timer(SystemTime);
    match format {
        LogFormat::Text => {
            subscriber.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).finish().try_init()?
        }
        LogFormat::Json => subscriber.json().flatten_event(true).finish().try_init()?,
    }
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let payload = panic.payload();
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let reason = text.unwrap_or("unknown");
        tracing::error!(%place, %reason, "panic");
    }));
    Ok(())
}

/// Without the lines of rustls, unless the directives name it: clients can cause them at will, and
/// the broker logs its own, with a bound.
fn filter(directives: &str) -> anyhow::Result<EnvFilter> {
    let directives = if directives.is_empty() { "info" } else { directives };
    let filter = EnvFilter::try_new(directives)?;
    Ok(match directives.contains("rustls") {
        true => filter,
        false => filter.add_directive("rustls=error".parse()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_or_refused() {
        for (directives, shown) in [
            ("", "rustls=error,info"),
            ("debug", "rustls=error,debug"),
            ("info,rustls=trace", "rustls=trace,info"),
            ("info,weir_broker::net=trace", "weir_broker::net=trace,rustls=error,info"),
        ] {
            assert_eq!(filter(directives).unwrap().to_string(), shown);
        }
        assert!(filter("weir_broker=loud").is_err());
    }
}
