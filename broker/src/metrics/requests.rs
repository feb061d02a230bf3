//! Requests by API: how many, how many failed, how long they took.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use weir_protocol::api::ApiKey;

use super::latency::Latency;

const APIS: usize = ApiKey::ALL.len();

/// Where an API's counts are, by its key: no search on the way of a request.
const SLOTS: [u8; SLOTS_LEN] = {
    let mut slots = [0; SLOTS_LEN];
    let mut at = 0;
    while at < APIS {
        slots[ApiKey::ALL[at] as usize] = at as u8;
        at += 1;
    }
    slots
};

/// One more than the largest key, which is the last.
const SLOTS_LEN: usize = ApiKey::ALL[APIS - 1] as usize + 1;

#[derive(Debug, Default)]
struct Api {
    errors: AtomicU64,
    duration: Latency,
}

/// The counts of all APIs.
#[derive(Debug)]
pub(super) struct Requests {
    apis: [Api; APIS],
}

impl Default for Requests {
    fn default() -> Self {
        Self { apis: std::array::from_fn(|_| Api::default()) }
    }
}

impl Requests {
    /// A request was answered.
    pub(super) fn finished(&self, api: ApiKey, elapsed: Duration, failed: bool) {
        let api = &self.apis[usize::from(SLOTS[api as usize])];
        api.duration.observe(elapsed);
        if failed {
            api.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn by_name(&self) -> impl Iterator<Item = ([(&'static str, &'static str); 1], &Api)> {
        ApiKey::ALL.iter().zip(&self.apis).map(|(key, api)| ([("api", key.name())], api))
    }
}

impl Collector for Requests {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut family = encoder.encode_descriptor(
            "requests",
            "Requests answered, by API.",
            None,
            MetricType::Counter,
        )?;
        for (labels, api) in self.by_name() {
            family
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, f64>(&api.duration.count(), None)?;
        }
        let help = "Requests whose answer carries an error, by API.";
        let mut family =
            encoder.encode_descriptor("request_errors", help, None, MetricType::Counter)?;
        for (labels, api) in self.by_name() {
            family
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, f64>(&api.errors.load(Ordering::Relaxed), None)?;
        }
        let help = "From a request's last byte to its answer's first, by API.";
        let mut family = encoder.encode_descriptor(
            "request_duration_seconds",
            help,
            None,
            MetricType::Histogram,
        )?;
        for (labels, api) in self.by_name() {
            api.duration.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
