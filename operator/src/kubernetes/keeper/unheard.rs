//! Brokers that have not connected to the controller since it took over.

use std::time::Duration;

use weir_protocol::types::BrokerId;

use super::super::host::Host;
use super::observation::Observation;
use super::pods::PodView;

/// The time within which a broker that knows the controller's address connects.
const COMES_WITHIN: Duration = Duration::from_secs(5);

/// Finds the brokers that have not connected to the controller since it took over.
pub(super) async fn find_unheard(host: Option<&Host>, findings: &mut Observation) {
    let Some(host) = host else { return };
    // A controller that does not answer is ending; the next pass sees that.
    let unheard = host.controller().unheard().await.unwrap_or_default();
    let state = host.state();
    let fenced: Vec<BrokerId> = state
        .brokers
        .values()
        .filter(|broker| !broker.is_usable())
        .map(|broker| broker.id)
        .collect();
    note_unheard(&mut findings.pods, &unheard, &fenced, host.age());
    // No watch reports that they connect.
    findings.under_way |= !unheard.is_empty();
}

/// Marks pods whose brokers have not connected, and adds what helps if they will not by themselves.
/// `unheard` are brokers whose session may still start, `fenced` those whose session expired;
/// `hosted` is the controller's age.
fn note_unheard(pods: &mut [PodView], unheard: &[BrokerId], fenced: &[BrokerId], hosted: Duration) {
    for pod in pods {
        let id = BrokerId(pod.id);
        let is_fenced = fenced.contains(&id);
        pod.unheard = unheard.contains(&id);
        // A broker that its controller has fenced is not ready; one without a controller stays
        // ready.
        let is_away =
            (pod.unheard || is_fenced) && pod.ready && !pod.terminating && hosted >= COMES_WITHIN;
        if !is_away || pod.trouble.is_some() {
            continue;
        }
        let name = &pod.name;
        let why = match pod.reads_address {
            false => format!(
                "its pod reads the operator's address only when it starts: `kubectl delete pod {name}` once the others are ready, and its successor finds this one"
            ),
            true if is_fenced => {
                format!(
                    "its log says why. If its image is one that reads the operator's address only when it starts, `kubectl delete pod {name}` helps"
                )
            }
            // It will connect by itself.
            true => continue,
        };
        pod.trouble = Some(format!(
            "broker {id} serves on what it knows, and does not come to this operator: {why}"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_will_not_come_by_itself_is_told_of() {
        let pod = |reads_address: bool| PodView {
            id: 1,
            name: "c-1".to_owned(),
            ready: true,
            reads_address,
            ..PodView::default()
        };
        let said = |pod: PodView, unheard: &[i32], fenced: &[i32], seconds: u64| {
            let ids = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect::<Vec<_>>();
            let mut pods = [pod];
            note_unheard(&mut pods, &ids(unheard), &ids(fenced), Duration::from_secs(seconds));
            let [pod] = pods;
            assert_eq!(pod.unheard, unheard == [1]);
            pod.trouble.unwrap_or_default()
        };
        assert_eq!(said(pod(true), &[1], &[], 60), "", "it reads the address, and comes");
        assert_eq!(said(pod(false), &[1], &[], 1), "", "it had no time to come");
        assert_eq!(said(pod(false), &[0], &[], 60), "", "it has come");
        assert!(
            said(pod(false), &[1], &[], 60)
                .contains("only when it starts: `kubectl delete pod c-1`")
        );
        assert!(
            said(pod(false), &[], &[1], 200)
                .contains("only when it starts: `kubectl delete pod c-1`")
        );
        assert!(said(pod(true), &[], &[1], 200).contains("its log says why"));
        let unready = PodView { ready: false, ..pod(false) };
        assert_eq!(said(unready, &[], &[1], 200), "", "it is down, or hears that it is fenced");
        let known = PodView { trouble: Some("known".to_owned()), ..pod(false) };
        assert_eq!(said(known, &[], &[1], 200), "known");
    }
}
