//! The file of SCRAM credentials.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt};

use weir_security::scram::{Credential, Mechanism};
use weir_security::secret::Secret;

use super::*;
use crate::controller::state::CredentialChange;

fn set(user: &str, mechanism: Mechanism, password: &str) -> CredentialChange {
    let credential =
        Credential::of_password(mechanism, password.as_bytes(), b"salt".to_vec(), 4096).unwrap();
    CredentialChange { user: user.to_owned(), mechanism, credential: Some(credential) }
}

#[tokio::test]
async fn credentials_are_kept_and_nobody_else_may_read_them() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("credentials");
    let (mut store, mut state) = filled(root.path()).await;
    assert!(!path.exists());
    // One that a crash of another writer has left, readable for all.
    std::fs::write(root.path().join(".new"), "weir").unwrap();
    std::fs::set_permissions(root.path().join(".new"), PermissionsExt::from_mode(0o644)).unwrap();
    let mut rotated = set("a b\n\"=,", Mechanism::Sha256, "x");
    rotated.credential = rotated.credential.map(|credential| credential.rotated(b"y"));
    let users = [rotated, set("ü", Mechanism::Sha512, "x"), set("ü", Mechanism::Sha256, "x")];
    let key = Change::ScramMockKey(Secret::new((0..16).collect()));
    let all = [key].into_iter().chain(users.map(Change::ScramCredential)).collect();
    commit(&mut store, &mut state, all).await;
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
    assert_same(store.load().await.unwrap(), &state);
    assert_eq!(store.credentials().unwrap().unwrap().len(), 4);
    let none = CredentialChange { credential: None, ..set("ü", Mechanism::Sha256, "x") };
    commit(&mut store, &mut state, vec![Change::ScramCredential(none)]).await;
    assert_same(store.load().await.unwrap(), &state);
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);

    let text = std::fs::read_to_string(&path).unwrap();
    let key = text.split("stored_key=").nth(1).unwrap().split(',').next().unwrap().to_owned();
    for (change, line) in [
        (text.replacen("mock-key 00", "mock-key ", 1), 2),
        (text.replacen("SCRAM-SHA-256", "SCRAM-SHA-1", 1), 3),
        (text.replacen("SCRAM-SHA-256", "SCRAM-SHA-512", 1), 3),
        (text.replacen("stored_key", "stored_kez", 1), 3),
        (text.replacen("\"ü\"", "ü", 1), 4),
        (text.replacen("end\n", "", 1), 5),
        (text.replacen(" 1\n", " 2\n", 1), 1),
    ] {
        assert_ne!(change, text);
        std::fs::write(&path, change).unwrap();
        let error = store.load().await.unwrap_err();
        assert!(matches!(&error, StoreError::Damaged { line: at, .. } if *at == line), "{error}");
        assert!(!error.to_string().contains(&key), "{error}");
    }
}
