//! Log recovery after an unclean stop: each broker reports its progress on its page, and the status
//! repeats it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::super::objects::HTTP_PORT;
use super::page::page;
use super::pods::PodView;

/// The interval of asking a broker that recovers its logs; each answer goes into the status.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The most time for a broker's answer. A broker without a page yet refuses at once.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// The start of the line with a broker's progress.
const RECOVERS: &str = "recovers its logs: ";

/// The brokers' answers, and when each broker was asked.
#[derive(Debug, Default)]
pub(super) struct LogRecovery {
    asked: BTreeMap<i32, (Instant, Option<String>)>,
}

impl LogRecovery {
    /// Sets the progress of log recovery on each pod. Asks brokers that are not ready: one that
    /// recovers its logs once per interval, any other in each pass. Returns whether one recovers.
    pub(super) async fn observe(&mut self, pods: &mut [PodView]) -> bool {
        self.observe_pods(pods, HTTP_PORT, Instant::now()).await
    }

    async fn observe_pods(&mut self, pods: &mut [PodView], port: u16, now: Instant) -> bool {
        let may_recover = |pod: &PodView| {
            !pod.ready && !pod.terminating && pod.trouble.is_none() && !pod.addresses.is_empty()
        };
        self.asked.retain(|broker, _| pods.iter().any(|pod| pod.id == *broker && may_recover(pod)));
        let is_due = |pod: &&PodView| {
            let asked = self.asked.get(&pod.id);
            asked.is_none_or(|(at, said)| {
                said.is_none() || now.saturating_duration_since(*at) >= LOOK_EVERY
            })
        };
        let due = pods.iter().filter(|pod| may_recover(pod)).filter(is_due);
        let due = due.filter_map(|pod| Some((pod.id, *pod.addresses.first()?)));
        let answers = due.map(|(id, address)| async move {
            (id, page(address, port, "/readyz", ANSWER_MAX).await)
        });
        for (id, answer) in futures::future::join_all(answers).await {
            // For a broker that does not answer, the pod's status says why.
            let said = answer.ok().and_then(|(_, text)| how_far(&text));
            self.asked.insert(id, (now, said));
        }
        for pod in pods.iter_mut() {
            pod.recovers = self.asked.get(&pod.id).and_then(|(_, said)| said.clone());
        }
        pods.iter().any(|pod| pod.recovers.is_some())
    }
}

/// The line about recovery on a page, if there is one.
fn how_far(text: &str) -> Option<String> {
    text.lines().find(|line| line.starts_with(RECOVERS)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use weir_telemetry::pages::{Probes, serve};

    use super::*;

    #[tokio::test]
    async fn a_broker_says_how_far_it_is() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (address, port) =
            (listener.local_addr().unwrap().ip(), listener.local_addr().unwrap().port());
        let says = Arc::new(Mutex::new("opens its log directory".to_owned()));
        let said = Arc::clone(&says);
        let probes = Probes {
            metrics: Box::new(String::new),
            not_ready: Box::new(move || vec![said.lock().unwrap().clone()]),
            stuck: Box::new(Vec::new),
            from_disk: None,
        };
        let server = tokio::spawn(serve(listener, probes));
        let pod = PodView { id: 2, addresses: vec![address], ..PodView::default() };
        let (mut recovering, begin) = (LogRecovery::default(), Instant::now());
        let mut pods = [pod];
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert!(!recovering.observe_pods(&mut pods, port, at(0)).await);
        let far = |done: u32| format!("recovers its logs: {done} of 1200, 1 of 2 MiB");
        *says.lock().unwrap() = far(340);
        assert!(recovering.observe_pods(&mut pods, port, at(1)).await);
        assert_eq!(pods[0].recovers, Some(far(340)));
        // The broker is asked again after the interval; until then its last answer counts.
        *says.lock().unwrap() = far(341);
        let mut anew = [PodView { recovers: None, ..pods[0].clone() }];
        assert!(recovering.observe_pods(&mut anew, port, at(10)).await);
        assert_eq!(anew[0].recovers, Some(far(340)));
        recovering.observe_pods(&mut pods, port, at(11)).await;
        assert_eq!(pods[0].recovers, Some(far(341)));
        // A ready broker has recovered, and a broker that is gone reports nothing.
        pods[0].ready = true;
        assert!(!recovering.observe_pods(&mut pods, port, at(12)).await);
        assert_eq!(pods[0].recovers, None);
        pods[0].ready = false;
        server.abort();
        let _ = server.await;
        assert!(!recovering.observe_pods(&mut pods, port, at(13)).await);
    }
}
