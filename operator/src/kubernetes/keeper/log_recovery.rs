//! Brokers that recover their logs after a stop that was none in order: each says on its page how
//! far it is, and the status says it on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::super::objects::HTTP_PORT;
use super::page::page;
use super::pods::PodView;

/// How often a broker is asked: what is said of it is written into the status.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How long a broker may take to answer. One that has no page yet refuses at once.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// How a broker begins to say how far it is.
const RECOVERS: &str = "recovers its logs: ";

/// What brokers said, and when they were asked.
#[derive(Debug, Default)]
pub(super) struct LogRecovery {
    asked: BTreeMap<i32, (Instant, Option<String>)>,
}

impl LogRecovery {
    /// Notes at each pod how far its broker is. Asks those that are not ready, each now and then;
    /// says whether there are some that recover.
    pub(super) async fn look(&mut self, pods: &mut [PodView]) -> bool {
        self.look_at(pods, HTTP_PORT, Instant::now()).await
    }

    async fn look_at(&mut self, pods: &mut [PodView], port: u16, now: Instant) -> bool {
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
            // One that does not answer is told of by its pod.
            let said = answer.ok().and_then(|(_, text)| how_far(&text));
            self.asked.insert(id, (now, said));
        }
        for pod in pods.iter_mut() {
            pod.recovers = self.asked.get(&pod.id).and_then(|(_, said)| said.clone());
        }
        pods.iter().any(|pod| pod.recovers.is_some())
    }
}

/// What a page says of recovery, if it says something.
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
        assert!(!recovering.look_at(&mut pods, port, at(0)).await);
        let far = |done: u32| format!("recovers its logs: {done} of 1200, 1 of 2 MiB");
        *says.lock().unwrap() = far(340);
        assert!(recovering.look_at(&mut pods, port, at(1)).await);
        assert_eq!(pods[0].recovers, Some(far(340)));
        // It is asked again when that has changed by some, and what it said is said on meanwhile.
        *says.lock().unwrap() = far(341);
        let mut anew = [PodView { recovers: None, ..pods[0].clone() }];
        assert!(recovering.look_at(&mut anew, port, at(10)).await);
        assert_eq!(anew[0].recovers, Some(far(340)));
        recovering.look_at(&mut pods, port, at(11)).await;
        assert_eq!(pods[0].recovers, Some(far(341)));
        // Who is ready has recovered, and who has gone says nothing.
        pods[0].ready = true;
        assert!(!recovering.look_at(&mut pods, port, at(12)).await);
        assert_eq!(pods[0].recovers, None);
        pods[0].ready = false;
        server.abort();
        let _ = server.await;
        assert!(!recovering.look_at(&mut pods, port, at(13)).await);
    }
}
