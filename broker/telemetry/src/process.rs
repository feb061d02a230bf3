//! The process metrics under the names of Prometheus' client libraries, and the version of Weir.

use std::fmt;

use procfs::process::Process;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// `process_*` and `weir_build_info`, for the program's `/metrics`. `version` is that of the
/// program.
pub fn registry(version: &'static str) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(ThisProcess { version }));
    registry
}

#[derive(Debug)]
struct ThisProcess {
    version: &'static str,
}

/// The values that could be read. A value that could not be read has no metric.
#[derive(Debug, Default)]
struct Read {
    cpu_seconds: Option<f64>,
    start_time_seconds: Option<f64>,
    resident_bytes: Option<f64>,
    virtual_bytes: Option<f64>,
    threads: Option<f64>,
    open_fds: Option<f64>,
    max_fds: Option<f64>,
}

fn read() -> Option<Read> {
    let process = Process::myself().ok()?;
    let stat = process.stat().ok()?;
    let ticks = procfs::ticks_per_second() as f64;
    let started =
        procfs::boot_time_secs().ok().map(|boot| boot as f64 + stat.starttime as f64 / ticks);
    let limits = process.limits().ok().map(|limits| limits.max_open_files.soft_limit);
    Some(Read {
        cpu_seconds: Some((stat.utime + stat.stime) as f64 / ticks),
        start_time_seconds: started,
        resident_bytes: Some(stat.rss as f64 * procfs::page_size() as f64),
        virtual_bytes: Some(stat.vsize as f64),
        threads: Some(stat.num_threads as f64),
        open_fds: process.fd_count().ok().map(|count| count as f64),
        max_fds: limits.and_then(|limit| match limit {
            procfs::process::LimitValue::Value(limit) => Some(limit as f64),
            procfs::process::LimitValue::Unlimited => None,
        }),
    })
}

impl Collector for ThisProcess {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let read = read().unwrap_or_default();
        if let Some(seconds) = read.cpu_seconds {
            let help = "Time that the process has spent on processors.";
            let metric = encoder.encode_descriptor(
                "process_cpu_seconds",
                help,
                None,
                MetricType::Counter,
            )?;
            ConstCounter::new(seconds).encode(metric)?;
        }
        for (name, help, value) in [
            (
                "process_start_time_seconds",
                "When the process started, since 1970.",
                read.start_time_seconds,
            ),
            (
                "process_resident_memory_bytes",
                "Resident memory of the process.",
                read.resident_bytes,
            ),
            ("process_virtual_memory_bytes", "Virtual memory of the process.", read.virtual_bytes),
            ("process_threads", "Threads of the process.", read.threads),
            ("process_open_fds", "Files that the process has open.", read.open_fds),
            ("process_max_fds", "Files that the process may have open.", read.max_fds),
        ] {
            if let Some(value) = value {
                let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                ConstGauge::new(value).encode(metric)?;
            }
        }
        let mut info = encoder.encode_descriptor(
            "weir_build_info",
            "1, with the version of Weir.",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(1_i64).encode(info.encode_family(&[("version", self.version)])?)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn a_process_is_told_of_under_the_names_that_everybody_knows() {
        let mut text = String::new();
        encode(&mut text, &registry("1.2.3")).unwrap();
        let value = |name: &str| -> f64 {
            let line = text.lines().find(|line| line.split(' ').next() == Some(name));
            line.unwrap_or_else(|| panic!("{name} is missing in\n{text}"))
                .rsplit(' ')
                .next()
                .unwrap()
                .parse()
                .unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_cpu_seconds_total") >= 0.0);
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
        assert!((now - value("process_start_time_seconds")).abs() < 3_600.0);
        assert!(text.contains("weir_build_info{version=\"1.2.3\"} 1"), "{text}");
    }
}
