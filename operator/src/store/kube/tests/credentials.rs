//! The Secret of SCRAM credentials: a part of the state like the tables.

use futures::FutureExt as _;
use serde_json::json;
use weir_protocol::types::ControllerEpoch;
use weir_security::scram::{Credential, Mechanism};

use super::server::Server;
use super::*;
use crate::controller::state::CredentialChange;

const CLUSTER: &str = "/apis/weir.dev/v1alpha1/namespaces/n/kafkaclusters/c";
const REGISTRY: &str = "/apis/weir.dev/v1alpha1/namespaces/n/partitiontables/c-registry";
const SECRETS: &str = "/api/v1/namespaces/n/secrets";
const SECRET: &str = "/api/v1/namespaces/n/secrets/c-scram-credentials";

/// An API server with a cluster of which everything goes with it, or stays.
fn server(on_delete: &str) -> Server {
    let server = Server::default();
    let spec = json!({"brokers": {"replicas": 3, "storage": {"onDelete": on_delete}}});
    server.put(
        CLUSTER,
        &json!({"apiVersion": weir_crds::API_VERSION, "kind": "KafkaCluster", "metadata": {"name": "c", "namespace": "n", "uid": "u"}, "spec": spec}),
    );
    server
}

fn store(server: &Server) -> KubeStore {
    let cluster: KafkaCluster = serde_json::from_value(server.get(CLUSTER).unwrap()).unwrap();
    let leads: LeaseCheck = Arc::new(|| async { true }.boxed());
    KubeStore::new(server.client(), &cluster, leads, ClusterCache::default())
}

/// A new cluster's store and state.
async fn created(server: &Server) -> (KubeStore, State) {
    let mut store = store(server);
    let cluster = serde_json::from_value(server.get(CLUSTER).unwrap()).unwrap();
    store.create("id".to_owned(), cluster).await.unwrap();
    taken_over(store).await
}

async fn taken_over(mut store: KubeStore) -> (KubeStore, State) {
    let mut state = store.load().await.unwrap();
    let epoch = ControllerEpoch(state.cluster.controller_epoch.0 + 1);
    commit(&mut store, &mut state, Change::ControllerEpoch(epoch)).await.unwrap();
    (store, state)
}

async fn commit(
    store: &mut KubeStore,
    state: &mut State,
    change: Change,
) -> Result<(), StoreError> {
    state.apply(&change);
    store.commit(state, &[change]).await
}

fn set(user: &str) -> Change {
    let credential = Credential::of_password(Mechanism::Sha256, b"x", b"salt".to_vec(), 4096);
    let (user, credential) = (user.to_owned(), Some(credential.unwrap()));
    Change::ScramCredential(CredentialChange { user, mechanism: Mechanism::Sha256, credential })
}

fn users(state: &State) -> Vec<&String> {
    state.credentials.by_user().keys().collect()
}

#[tokio::test]
async fn credentials_survive_the_controller_and_what_an_earlier_one_writes_is_refused() {
    let server = server("Delete");
    let (mut first, mut state) = created(&server).await;
    server.take_writes();
    commit(&mut first, &mut state, set("a")).await.unwrap();
    assert_eq!(server.take_writes(), [format!("PATCH {SECRET}")]);
    let secret = server.get(SECRET).unwrap();
    assert_eq!(secret["metadata"]["ownerReferences"][0]["uid"], "u");
    assert_eq!(secret["metadata"]["labels"][CLUSTER_LABEL], "c");

    let (mut second, mut later) = taken_over(store(&server)).await;
    assert_eq!(users(&later), ["a"]);
    let late = commit(&mut first, &mut state, set("b")).await;
    assert!(matches!(late, Err(StoreError::Conflict)), "{late:?}");
    commit(&mut second, &mut later, set("c")).await.unwrap();
    assert_eq!(users(&store(&server).load().await.unwrap()), ["a", "c"]);
}

#[tokio::test]
async fn a_secret_that_somebody_deletes_is_made_again_of_what_the_controller_knows() {
    let server = server("Delete");
    let (mut store, mut state) = created(&server).await;
    commit(&mut store, &mut state, set("a")).await.unwrap();
    server.remove(SECRET);
    server.take_writes();
    commit(&mut store, &mut state, set("b")).await.unwrap();
    assert_eq!(server.take_writes(), [format!("PATCH {SECRET}"), format!("POST {SECRETS}")]);
    assert_eq!(users(&super::credentials::store(&server).load().await.unwrap()), ["a", "b"]);
}

#[tokio::test]
async fn a_secret_of_somebody_else_is_neither_read_nor_written() {
    let theirs = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "c-scram-credentials", "namespace": "n", "labels": {CLUSTER_LABEL: "c"}}, "data": {"credentials": ""}});
    for owner in [
        json!([]),
        json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "x", "controller": true}]),
    ] {
        let mut theirs = theirs.clone();
        theirs["metadata"]["ownerReferences"] = owner;
        let server = server("Retain");
        let (mut first, mut state) = created(&server).await;
        // While the controller runs, in place of its own.
        server.remove(SECRET);
        server.put(SECRET, &theirs);
        let put = server.get(SECRET);
        let wrote = commit(&mut first, &mut state, set("a")).await;
        assert!(matches!(wrote, Err(StoreError::Conflict)), "{wrote:?}");
        let read = store(&server).load().await.unwrap_err();
        assert!(
            read.to_string().contains("the Secret n/c-scram-credentials was made by somebody else")
        );
        assert_eq!(server.get(SECRET), put);
    }
}

#[tokio::test]
async fn where_the_volumes_stay_the_credentials_stay_and_the_next_cluster_has_them() {
    let server = server("Retain");
    let (mut first, mut state) = created(&server).await;
    commit(&mut first, &mut state, set("a")).await.unwrap();
    server.delete_with_dependents(CLUSTER);
    let mut next = server.get(SECRET).unwrap();
    assert!(next["metadata"]["ownerReferences"].as_array().is_none_or(Vec::is_empty));
    next["metadata"]["uid"] = json!("v");
    let mut cluster = super::credentials::server("Delete").get(CLUSTER).unwrap();
    cluster["metadata"]["uid"] = json!("v");
    server.put(CLUSTER, &cluster);
    assert!(server.get(REGISTRY).is_some());
    let (_, state) = taken_over(store(&server)).await;
    assert_eq!(users(&state), ["a"]);
    // It goes with this one.
    assert_eq!(server.get(SECRET).unwrap()["metadata"]["ownerReferences"][0]["uid"], "v");
    server.delete_with_dependents(CLUSTER);
    assert_eq!(server.get(SECRET), None);
}

#[tokio::test]
async fn a_secret_that_is_damaged_is_refused_and_not_shown() {
    let server = server("Delete");
    let (mut first, mut state) = created(&server).await;
    commit(&mut first, &mut state, set("a")).await.unwrap();
    let mut secret = server.get(SECRET).unwrap();
    secret["data"]["credentials"] = json!("d2Vpci1jcmVkZW50aWFscyAxCm5vdGhpbmcKZW5kCg==");
    server.put(SECRET, &secret);
    let error = store(&server).load().await.unwrap_err();
    assert!(error.to_string().starts_with("Secret c-scram-credentials, line 2: "), "{error}");
}
