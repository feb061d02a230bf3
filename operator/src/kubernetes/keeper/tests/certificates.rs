//! The CA and the listeners' certificates: made once, renewed, never somebody else's.

use weir_security::principal::Principal;

use super::*;

const SECRETS: &str = "/api/v1/namespaces/n/secrets";
const SET: &str = "/apis/apps/v1/namespaces/n/statefulsets/c";

fn secured(tls: &Value) -> Value {
    json!({"brokers": {"replicas": 2}, "listeners": [{"name": "plain", "port": 9092}, {"name": "tls", "port": 9093, "tls": tls}]})
}

fn secret(server: &Server, name: &str) -> Option<Value> {
    server.get(&format!("{SECRETS}/{name}"))
}

fn data(server: &Server, name: &str) -> Value {
    secret(server, name).unwrap()["data"].clone()
}

/// Somebody changes what a Secret holds.
fn change(server: &Server, name: &str, how: impl FnOnce(&mut Value)) {
    let mut object = secret(server, name).unwrap();
    how(&mut object["data"]);
    server.put(&format!("{SECRETS}/{name}"), &object);
}

fn write(server: &Server, name: &str, data: &Value) {
    let object = json!({"metadata": {"name": name, "namespace": "n"}, "data": data});
    server.put(&format!("{SECRETS}/{name}"), &object);
}

#[tokio::test]
async fn a_ca_and_its_certificates_are_made_once() {
    let server = server(&secured(&json!({})));
    let mut kept = Kept::by(&server);
    kept.pass(&server).await;
    kept.pass(&server).await;
    let (ca, issued) = (data(&server, "c-ca"), data(&server, "c-tls"));
    assert_eq!(data(&server, "c-ca-cert"), json!({"ca.crt": ca["tls.crt"]}));
    let keys: Vec<&String> = issued.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["tls.crt", "tls.key"]);
    server.take_writes();
    kept.pass(&server).await;
    let writes = server.take_writes();
    assert!(!writes.iter().any(|write| write.contains("/secrets/")), "{writes:?}");
    // Another operator goes on with them.
    Kept::by(&server).pass(&server).await;
    assert_eq!((data(&server, "c-ca"), data(&server, "c-tls")), (ca.clone(), issued));
    // Somebody deletes the CA: clients trust it, so it comes back.
    server.remove(&format!("{SECRETS}/c-ca"));
    server.remove(&format!("{SECRETS}/c-ca-cert"));
    kept.pass(&server).await;
    assert_eq!(data(&server, "c-ca"), ca);
    assert_eq!(data(&server, "c-ca-cert"), json!({"ca.crt": ca["tls.crt"]}));
    let status = server.get(CLUSTER).unwrap()["status"]["listeners"].clone();
    assert!(status[0].get("certificateNotAfter").is_none(), "{status}");
    assert!(status[1]["certificateNotAfter"].is_string(), "{status}");
}

#[tokio::test]
async fn a_certificate_names_the_brokers_that_there_are() {
    let server = server(&secured(&json!({})));
    let mut kept = Kept::by(&server);
    // The second pass knows the addresses in the status.
    kept.pass(&server).await;
    kept.pass(&server).await;
    let (ca, two) = (data(&server, "c-ca"), data(&server, "c-tls"));
    let mut resource = server.get(CLUSTER).unwrap();
    resource["spec"]["brokers"]["replicas"] = json!(3);
    server.put(CLUSTER, &resource);
    kept.pass(&server).await;
    assert_ne!(data(&server, "c-tls"), two);
    assert_eq!(data(&server, "c-ca"), ca);
}

#[tokio::test]
async fn a_secret_of_somebody_else_is_left_alone() {
    for name in ["c-ca", "c-ca-cert", "c-tls"] {
        let server = server(&secured(&json!({})));
        write(&server, name, &json!({"tls.crt": "eA==", "tls.key": "eA=="}));
        let before = secret(&server, name);
        let mut kept = Kept::by(&server);
        kept.pass(&server).await;
        kept.pass(&server).await;
        assert_eq!(secret(&server, name), before);
        let told = said(&server, "NameTaken");
        assert!(told.contains(&format!("Secret n/{name} was made by somebody else")), "{told}");
        assert_eq!(server.get(SET), None, "brokers do not use it");
        server.remove(&format!("{SECRETS}/{name}"));
        kept.pass(&server).await;
        assert!(server.get(SET).is_some());
    }
}

#[tokio::test]
async fn rules_that_no_broker_reads_leave_the_pods_as_they_are() {
    let tls = |rules: &str| {
        secured(
            &json!({"clientAuthentication": {"caSecret": {"name": "clients"}, "principalMappingRules": rules}}),
        )
    };
    let server = server(&tls("DEFAULT"));
    write(&server, "clients", &json!({"ca.crt": "eA=="}));
    let mut kept = Kept::by(&server);
    kept.pass(&server).await;
    let before = server.get(SET).unwrap();
    let mut resource = server.get(CLUSTER).unwrap();
    resource["spec"] = tls("RULE:^(a+$/x/");
    server.put(CLUSTER, &resource);
    kept.pass(&server).await;
    let told = said(&server, "UpToDate");
    assert!(told.starts_with("False: ") && told.contains("principalMappingRules"), "{told}");
    assert_eq!(server.get(SET).unwrap()["spec"], before["spec"]);
}

#[tokio::test]
async fn a_secret_of_a_user_is_needed_with_its_keys() {
    let tls = json!({"certificateSecret": {"name": "mine"}, "clientAuthentication": {"caSecret": {"name": "clients"}}});
    let server = server(&secured(&tls));
    let mut kept = Kept::by(&server);
    let mut expect = async |part: &str| {
        kept.pass(&server).await;
        let told = said(&server, "UpToDate");
        assert!(told.starts_with("False: ") && told.contains(part), "{told}");
        assert_eq!(server.get(SET), None);
    };
    expect("spec.listeners[tls].tls.certificateSecret: there is no Secret \"mine\"").await;
    write(&server, "mine", &json!({"tls.crt": "eA=="}));
    expect("the Secret \"mine\" has no tls.key").await;
    write(&server, "mine", &json!({"tls.crt": "eA==", "tls.key": "eA=="}));
    expect("tls.clientAuthentication.caSecret: there is no Secret \"clients\"").await;
    write(&server, "clients", &json!({"ca.crt": "eA=="}));
    kept.pass(&server).await;
    assert!(server.get(SET).is_some());
    assert_eq!(secret(&server, "c-ca"), None, "there is nothing to issue");
    assert_eq!((secret(&server, "c-tls"), secret(&server, "c-ca-cert")), (None, None));
}

#[tokio::test]
async fn nodes_have_certificates_that_are_made_once() {
    let server = server(&json!({"brokers": {"replicas": 2}}));
    let mut kept = Kept::by(&server);
    kept.pass(&server).await;
    let domain = server.get(CLUSTER).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    let keys = |server: &Server| -> Vec<String> {
        data(server, "c-nodes").as_object().unwrap().keys().cloned().collect()
    };
    let of = |id: i32| [format!("broker-{id}.crt"), format!("broker-{id}.key")];
    let of_two = [of(0), of(1)].concat();
    assert_eq!(keys(&server), [&of_two[..], &["ca.crt".to_owned()]].concat());
    let (ca, nodes) = (data(&server, "c-nodes-ca-key"), data(&server, "c-nodes"));
    assert_eq!(nodes["ca.crt"], ca["tls.crt"]);
    server.take_writes();
    kept.pass(&server).await;
    let writes = server.take_writes();
    assert!(!writes.iter().any(|write| write.contains("/secrets/")), "{writes:?}");
    // Another operator goes on with them, and has a certificate of its own.
    let mut another = Kept::by(&server);
    another.pass(&server).await;
    assert_eq!((data(&server, "c-nodes-ca-key"), data(&server, "c-nodes")), (ca.clone(), nodes));
    let shown = another.keeper.context.controllers.identities(&domain).unwrap().current().unwrap();
    assert_eq!((shown.domain(), shown.node()), (domain.as_str(), &Principal::Controller));
    // One that finds the cluster paused has a certificate too, since brokers go on.
    let mut resource = server.get(CLUSTER).unwrap();
    resource["spec"]["paused"] = json!(true);
    server.put(CLUSTER, &resource);
    let mut pausing = Kept::by(&server);
    pausing.pass(&server).await;
    assert!(pausing.keeper.context.controllers.identities(&domain).unwrap().current().is_ok());
    // It makes what is missing or due, too: the brokers go on.
    change(&server, "c-nodes", |data| drop(data.as_object_mut().unwrap().remove("broker-1.crt")));
    pausing.pass(&server).await;
    assert_eq!(keys(&server), [&of_two[..], &["ca.crt".to_owned()]].concat());
    drop(pausing);
    resource["spec"]["paused"] = json!(false);
    server.put(CLUSTER, &resource);
    // Somebody deletes the CA: brokers trust it, so it comes back.
    server.remove(&format!("{SECRETS}/c-nodes-ca-key"));
    another.pass(&server).await;
    assert_eq!(data(&server, "c-nodes-ca-key"), ca);
    change(&server, "c-nodes-ca-key", |data| data["tls.crt"] = json!("eA=="));
    another.pass(&server).await;
    assert_eq!(data(&server, "c-nodes-ca-key"), ca, "nor does something that is no CA replace it");
    drop(another);
    // More brokers: theirs are added.
    let mut resource = server.get(CLUSTER).unwrap();
    resource["spec"]["brokers"]["replicas"] = json!(3);
    server.put(CLUSTER, &resource);
    kept.pass(&server).await;
    assert!(keys(&server).contains(&"broker-2.crt".to_owned()), "{:?}", keys(&server));
}

/// Kubernetes starts no pod that mounts a key which its Secret lacks.
#[tokio::test]
async fn a_certificate_that_pods_still_mount_stays() {
    let pod = "/api/v1/namespaces/n/pods/c-0";
    let spec = |listeners: &Value| {
        let mut all = vec![json!({"name": "plain", "port": 9092})];
        all.extend(listeners.as_array().unwrap().iter().cloned());
        json!({"brokers": {"replicas": 1}, "listeners": all})
    };
    let one = |name: &str, port: i32, tls: Value| json!({"name": name, "port": port, "tls": tls});
    let both = json!([one("one", 9093, json!({})), one("two", 9094, json!({}))]);
    let server = server(&spec(&both));
    let mut kept = Kept::by(&server);
    kept.pass(&server).await;
    let set_spec = |listeners: &Value| {
        let mut resource = server.get(CLUSTER).unwrap();
        resource["spec"] = spec(listeners);
        server.put(CLUSTER, &resource);
    };
    let revision = |of_set: &str, of_pod: &str| {
        let mut set = server.get(SET).unwrap();
        set["metadata"]["uid"] = json!("set");
        set["status"] =
            json!({"replicas": 1, "updateRevision": of_set, "observedGeneration": 1_000});
        server.put(SET, &set);
        let owner = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "c", "uid": "set", "controller": true}]);
        let labels = json!({"app.kubernetes.io/name": "weir", "app.kubernetes.io/component": "broker", "weir.dev/cluster": "c", "controller-revision-hash": of_pod});
        server.put(pod, &json!({"metadata": {"name": "c-0", "generateName": "c-", "namespace": "n", "uid": "p", "labels": labels, "ownerReferences": owner}}));
    };
    let all = ["one.crt", "one.key", "two.crt", "two.key"];
    let keys =
        || -> Vec<String> { data(&server, "c-tls").as_object().unwrap().keys().cloned().collect() };
    revision("a", "a");
    kept.pass(&server).await;
    kept.pass(&server).await;
    assert_eq!(keys(), all);
    // Refused: the pods stay as they are.
    set_spec(&json!([
        one("one", 9093, json!({})),
        one("two", 9094, json!({"certificateSecret": {"name": "mine"}}))
    ]));
    for _ in 0..3 {
        kept.pass(&server).await;
        assert!(said(&server, "UpToDate").contains("there is no Secret"));
        assert_eq!(keys(), all);
    }
    // Another operator takes over meanwhile.
    let mut kept = Kept::by(&server);
    kept.pass(&server).await;
    assert_eq!(keys(), all);
    write(&server, "mine", &json!({"tls.crt": "eA==", "tls.key": "eA=="}));
    revision("b", "a");
    kept.pass(&server).await;
    kept.pass(&server).await;
    assert_eq!(keys(), all, "the pod is not restarted yet");
    revision("b", "b");
    kept.pass(&server).await;
    kept.pass(&server).await;
    assert_eq!(keys(), ["one.crt", "one.key"]);
}
