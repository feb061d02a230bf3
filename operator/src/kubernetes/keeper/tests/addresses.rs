//! How brokers find the controller, and clients the brokers.

use super::*;
use crate::store::kube::tests::broker::Broker;

#[tokio::test]
async fn brokers_are_told_of_an_operator_elsewhere_and_given_time_to_come() {
    let server = server(&one_broker());
    let mut first = Kept::by(&server);
    first.pass(&server).await;
    let _broker = serve(first.keeper.host.as_ref().unwrap()).await;
    // Its pod is to be restarted, and nothing else prevents that.
    let set = "/apis/apps/v1/namespaces/n/statefulsets/c";
    let mut object = server.get(set).unwrap();
    object["status"] = json!({"replicas": 1, "updateRevision": "c-new", "observedGeneration": 1});
    server.put(set, &object);
    let mut labels = json!(Names::of(&resource(&server)).labels());
    labels["controller-revision-hash"] = json!("c-old");
    let owners = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "c", "uid": object["metadata"]["uid"], "controller": true}]);
    let pod = "/api/v1/namespaces/n/pods/c-0";
    server.put(
        pod,
        &json!({
            "metadata": {"name": "c-0", "generateName": "c-", "labels": labels, "ownerReferences": owners},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }),
    );
    let template = server.get(set).unwrap()["spec"]["template"].clone();
    let excused = |kept: &Kept| {
        let (context, cluster) = (kept.keeper.context.clone(), resource(&server));
        async move {
            host::elsewhere::excused(&context, &cluster, &crate::time::now())
                .await
                .unwrap()
                .as_secs()
        }
    };
    assert_eq!(excused(&first).await, 0);
    drop(first);
    let mut second = Kept::by(&server);
    second.keeper.context.controller_address = "weir-operator.elsewhere.svc:9190".to_owned();
    assert_eq!(excused(&second).await, 180);
    second.pass(&server).await;
    assert_eq!(
        server.get("/api/v1/namespaces/n/configmaps/c-brokers").unwrap()["data"]["WEIR_CONTROLLER"],
        "weir-operator.elsewhere.svc:9190"
    );
    assert_eq!(
        server.get(set).unwrap()["spec"]["template"],
        template,
        "nobody is restarted for it"
    );
    // That the broker has not connected does not fence it, but prevents its restart.
    assert!(server.get(pod).is_some());
    assert!(
        said(&server, "UpToDate").contains("broker 0 has not come to this operator yet"),
        "{}",
        said(&server, "UpToDate")
    );
    assert!(said(&server, "Available").starts_with("True: "), "{}", said(&server, "Available"));
    let _broker = serve(second.keeper.host.as_ref().unwrap()).await;
    second.pass(&server).await;
    assert_eq!(server.get(pod), None);
}

#[tokio::test]
async fn a_broker_whose_service_is_somebody_elses_is_told_of_by_its_pod() {
    let service = "/api/v1/namespaces/n/services/c-0";
    let server = server(&json!({"brokers": {"replicas": 1}}));
    server.put(service, &foreign(service));
    let mut kept = Kept::by(&server);
    kept.pass(&server).await;
    let _broker = serve(kept.keeper.host.as_ref().unwrap()).await;
    let told = |kept: &Kept| {
        kept.keeper.host.as_ref().unwrap().state().brokers[&BrokerId(0)].endpoints[0].host.clone()
    };
    assert_eq!(told(&kept), "c-0.n.svc", "as it says itself");
    kept.pass(&server).await;
    assert_eq!(told(&kept), "c-0.c-brokers.n.svc");
    server.remove(service);
    kept.pass(&server).await;
    assert_eq!(told(&kept), "c-0.n.svc");
}

/// Broker 0 registers with the controller, and serves.
async fn serve(host: &Host) -> Broker {
    Broker::serves_at("PLAIN", "c-0.n.svc", host.controller(), host.cluster_id()).await
}
