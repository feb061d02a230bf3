//! Logs that brokers have set aside: each broker lists its own on its page, and the status says how
//! to remove them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::ensure;
use hyper::StatusCode;
use tracing::debug;
use weir_crds::BrokerStrays;

use super::super::objects::HTTP_PORT;
use super::page::page;
use super::pods::PodView;
use crate::controller::Key;

/// The interval of asking a broker.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The most time for a broker's answer.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// The most logs of a broker that the status names.
const NAMED_MAX: usize = 10;

/// The lists of all brokers, and when each broker was asked.
#[derive(Debug, Default)]
pub(super) struct Strays {
    known: Vec<BrokerStrays>,
    asked: BTreeMap<i32, Instant>,
}

impl Strays {
    /// Returns the lists. Asks brokers that started since, or whose last answer is older than the
    /// interval. The last list of a broker that does not answer stays.
    pub(super) async fn current(&mut self, key: &Key, pods: &[PodView]) -> Vec<BrokerStrays> {
        let due = self.due(pods, Instant::now());
        let asked = due.iter().filter_map(|pod| Some((*pod, *pod.addresses.first()?)));
        let answers = futures::future::join_all(
            asked.map(|(pod, address)| async move { (pod, list(address, HTTP_PORT).await) }),
        )
        .await;
        for (pod, answer) in answers {
            self.asked.insert(pod.id, Instant::now());
            match answer {
                Ok(list) => {
                    self.known.retain(|strays| strays.broker != pod.id);
                    self.known.extend(of_list(key, pod.id, &pod.name, &list));
                }
                Err(error) => debug!(
                    broker = pod.id,
                    error = format!("{error:#}"),
                    "ask for the logs that a broker has set aside"
                ),
            }
        }
        self.known.sort_by_key(|strays| strays.broker);
        self.known.clone()
    }

    /// The brokers to ask. A broker sets logs aside when it starts, so one that was not ready
    /// meanwhile is asked at once.
    fn due<'a>(&mut self, pods: &'a [PodView], now: Instant) -> Vec<&'a PodView> {
        let ready: Vec<&PodView> =
            pods.iter().filter(|pod| pod.ready && !pod.terminating).collect();
        self.asked.retain(|broker, _| ready.iter().any(|pod| pod.id == *broker));
        let is_due = |pod: &&PodView| {
            let asked = self.asked.get(&pod.id);
            asked.is_none_or(|at| now.saturating_duration_since(*at) >= LOOK_EVERY)
        };
        ready.into_iter().filter(is_due).collect()
    }

    /// When to ask again while there are such logs: no watch reports their removal.
    pub(super) fn again(&self) -> Option<Duration> {
        let at = self.asked.values().min().filter(|_| !self.known.is_empty())?;
        Some(LOOK_EVERY.saturating_sub(at.elapsed()))
    }
}

/// Reads a broker's list from its page.
async fn list(address: IpAddr, port: u16) -> anyhow::Result<String> {
    let (status, list) = page(address, port, "/strays", ANSWER_MAX).await?;
    ensure!(status == StatusCode::OK, "the broker answers {status}");
    Ok(list)
}

/// Parses a list: lines with bytes and a name. `None` if it is empty.
fn of_list(key: &Key, broker: i32, pod: &str, list: &str) -> Option<BrokerStrays> {
    let lines = list.lines().filter_map(|line| {
        let (bytes, name) = line.split_once(' ')?;
        Some((bytes.parse::<i64>().ok()?, name.to_owned()))
    });
    let all: Vec<(i64, String)> = lines.collect();
    if all.is_empty() {
        return None;
    }
    Some(BrokerStrays {
        broker,
        count: i64::try_from(all.len()).unwrap_or(i64::MAX),
        bytes: all.iter().fold(0, |sum, (bytes, _)| sum.saturating_add(*bytes)),
        logs: all.into_iter().take(NAMED_MAX).map(|(_, name)| name).collect(),
        remove: format!("kubectl exec -n {} {pod} -- /weir-broker strays --remove", key.namespace),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weir_telemetry::pages::{Probes, serve};

    use super::*;

    #[tokio::test]
    async fn a_brokers_list_becomes_a_command() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (address, port) =
            (listener.local_addr().unwrap().ip(), listener.local_addr().unwrap().port());
        let text = || Ok((0..12).map(|n| format!("{} t-{n}.ab-stray\n", n + 1)).collect());
        let probes = Probes {
            metrics: Box::new(String::new),
            not_ready: Box::new(Vec::new),
            stuck: Box::new(Vec::new),
            from_disk: Some(("strays", Arc::new(text))),
        };
        let server = tokio::spawn(serve(listener, probes));
        let list = list(address, port).await.unwrap();
        let key = Key::new(Some("n"), Some("c"));
        let strays = of_list(&key, 2, "c-2", &list).unwrap();
        assert_eq!(
            (strays.broker, strays.count, strays.bytes, strays.logs.len()),
            (2, 12, 78, NAMED_MAX)
        );
        assert_eq!(strays.logs[0], "t-0.ab-stray");
        assert_eq!(strays.remove, "kubectl exec -n n c-2 -- /weir-broker strays --remove");
        assert_eq!(of_list(&key, 2, "c-2", ""), None);
        server.abort();
    }

    #[test]
    fn a_broker_is_asked_when_it_comes_and_now_and_then() {
        let pod = |id: i32, ready: bool| PodView { id, ready, ..PodView::default() };
        let (mut strays, begin) = (Strays::default(), Instant::now());
        let mut due = |pods: &[PodView], seconds: u64| {
            let now = begin + Duration::from_secs(seconds);
            let due: Vec<i32> = strays.due(pods, now).iter().map(|pod| pod.id).collect();
            strays.asked.extend(due.iter().map(|id| (*id, now)));
            due
        };
        assert!(
            due(&[pod(0, false), pod(1, false)], 0).is_empty(),
            "who is not ready is not asked"
        );
        assert_eq!(due(&[pod(0, true), pod(1, false)], 1), [0]);
        assert_eq!(due(&[pod(0, true), pod(1, true)], 2), [1]);
        assert!(due(&[pod(0, true), pod(1, true)], 60).is_empty());
        assert_eq!(due(&[pod(0, true), pod(1, false)], 61), [0]);
        assert_eq!(due(&[pod(0, true), pod(1, true)], 62), [1], "it has come anew");
    }

    #[tokio::test]
    async fn an_older_broker_has_no_list() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (address, port) =
            (listener.local_addr().unwrap().ip(), listener.local_addr().unwrap().port());
        let probes = Probes {
            metrics: Box::new(String::new),
            not_ready: Box::new(Vec::new),
            stuck: Box::new(Vec::new),
            from_disk: None,
        };
        let server = tokio::spawn(serve(listener, probes));
        let error = list(address, port).await.unwrap_err();
        assert!(format!("{error:#}").contains("404"), "{error:#}");
        server.abort();
    }
}
