//! AlterUserScramCredentials.

use weir_protocol::messages::AlterUserScramCredentialsRequest;
use weir_protocol::messages::alter_user_scram_credentials_request::{
    ScramCredentialDeletion, ScramCredentialUpsertion,
};
use weir_protocol::types::BrokerId;
use weir_security::scram::{Mechanism, SALT_BYTES_MAX};

use super::World;
use crate::controller::image;
use crate::controller::state::Change;
use crate::controller::{
    AdminRequest, AdminResponse, CREDENTIALS_BYTES_MAX, Event, RECORDS_PER_REQUEST_MAX, Reply,
};

fn deletion(name: &str, mechanism: i8) -> ScramCredentialDeletion {
    ScramCredentialDeletion { name: name.to_owned(), mechanism }
}

fn upsertion(name: &str, mechanism: i8, iterations: i32) -> ScramCredentialUpsertion {
    let bytes = if mechanism == 2 { 64 } else { 32 };
    ScramCredentialUpsertion {
        name: name.to_owned(),
        mechanism,
        iterations,
        salt: vec![1; SALT_BYTES_MAX].into(),
        salted_password: vec![2; bytes].into(),
    }
}

fn world() -> World {
    let mut world = World::new();
    world.play("register 0 process=1");
    world.play("heartbeat 0 ready");
    world
}

/// The reply, and the changes.
fn ask(
    world: &mut World,
    deletions: Vec<ScramCredentialDeletion>,
    upsertions: Vec<ScramCredentialUpsertion>,
) -> (Reply, Vec<Change>) {
    let (broker, epoch) = (BrokerId(0), world.state.brokers[&BrokerId(0)].epoch);
    let request = AlterUserScramCredentialsRequest { deletions, upsertions };
    let request = AdminRequest::AlterUserScramCredentials(request);
    world.event(Event::Admin { broker, epoch, request })
}

/// The error code of each user.
fn codes(reply: Reply) -> Vec<(String, i16)> {
    let Reply::Admin(AdminResponse::AlterUserScramCredentials(response)) = reply else {
        panic!("{reply:?}")
    };
    response.results.into_iter().map(|result| (result.user, result.error_code)).collect()
}

#[test]
fn users_are_altered_one_by_one_and_brokers_hear_of_it() {
    let mut world = world();
    let before = world.state.clone();
    let upsertions = vec![
        upsertion("a", 1, 4096),
        upsertion("b", 2, 16_384),
        upsertion("c", 1, 4095),
        upsertion("d", 3, 4096),
        upsertion("", 1, 4096),
        upsertion("e", 1, 4096),
        upsertion("e", 2, 4096),
    ];
    let (reply, changes) = ask(&mut world, vec![deletion("nobody", 1)], upsertions);
    let expected = [("", 93), ("a", 0), ("b", 0), ("c", 93), ("d", 33), ("e", 92), ("nobody", 91)];
    assert_eq!(codes(reply), expected.map(|(user, code)| (user.to_owned(), code)));
    assert_eq!(changes.len(), 2);
    assert!(world.state.sums_are_true());
    let told = image::delta(&before, &world.state, &changes).unwrap();
    assert_eq!(told.scram_credentials, image::full(&world.state).scram_credentials);

    let before = world.state.clone();
    let (reply, changes) =
        ask(&mut world, vec![deletion("a", 1), deletion("b", 1)], vec![upsertion("c", 2, 4096)]);
    let expected = [("a", 0), ("b", 91), ("c", 0)];
    assert_eq!(codes(reply), expected.map(|(user, code)| (user.to_owned(), code)));
    let told = image::delta(&before, &world.state, &changes).unwrap().scram_credentials;
    let texts = told.iter().map(|of| (&*of.user, of.mechanism, of.credential.is_empty()));
    assert_eq!(texts.collect::<Vec<_>>(), [("a", 1, true), ("c", 2, false)]);
    let users: Vec<_> = world.state.credentials.by_user().keys().collect();
    assert_eq!(users, ["b", "c"]);
    assert!(world.state.credentials.by_user()["c"].contains_key(&Mechanism::Sha512));
    assert!(world.state.sums_are_true());
}

#[test]
fn all_credentials_together_have_a_bound() {
    let mut world = world();
    let many = |from: usize| {
        (from..from + 1000).map(|at| upsertion(&format!("user-{at}"), 2, 4096)).collect()
    };
    let mut refused = Vec::new();
    for from in [0, 1000, 2000] {
        let (reply, _) = ask(&mut world, Vec::new(), many(from));
        refused.extend(codes(reply).into_iter().filter(|(_, code)| *code != 0));
    }
    assert!(!refused.is_empty() && refused.iter().all(|(_, code)| *code == 44), "{refused:?}");
    let text = crate::store::written_credentials(&world.state.credentials);
    assert!((CREDENTIALS_BYTES_MAX * 9 / 10..CREDENTIALS_BYTES_MAX).contains(&text.len()));
    // One that is replaced takes no more, and one that is deleted makes room.
    let user = world.state.credentials.by_user().keys().next().unwrap().clone();
    let (reply, _) = ask(&mut world, Vec::new(), vec![upsertion(&user, 2, 8192)]);
    assert_eq!(codes(reply)[0].1, 0);
    let next = || vec![upsertion("user-x", 2, 4096)];
    assert_eq!(codes(ask(&mut world, Vec::new(), next()).0)[0].1, 44);
    assert_eq!(codes(ask(&mut world, vec![deletion(&user, 2)], Vec::new()).0)[0].1, 0);
    assert_eq!(codes(ask(&mut world, Vec::new(), next()).0)[0].1, 0);
    assert!(world.state.sums_are_true());

    let deletions = vec![deletion("nobody", 1); RECORDS_PER_REQUEST_MAX + 1];
    let (reply, changes) = ask(&mut world, deletions, Vec::new());
    assert!(matches!(reply, Reply::Refused(..)) && changes.is_empty());
}
