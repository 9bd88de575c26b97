//! Who may open a repository.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use backup_repository::*;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_opens_what_it_was_made_with_and_nothing_else_does() {
    let folder = tempfile::tempdir().unwrap();
    let (key, other) = (folder.path().join("key"), folder.path().join("other"));
    s3::write_secret(&key, "0123456789abcdef0123456789abcdef\n");
    s3::write_secret(&other, "0123456789abcdef0123456789abcdeg\n");
    let store = memory();
    let settings = EngineSettings::default();
    let made = Repository::init(store.clone(), Secret::key_file(&key).unwrap(), cheap(), settings.clone())
        .await
        .unwrap();
    let again =
        Repository::open(store.clone(), Secret::key_file(&key).unwrap(), settings.clone()).await.unwrap();
    assert_eq!(made.id(), again.id());
    // The same bytes as a passphrase are another secret.
    let words = Secret::passphrase_file(&key).unwrap();
    for wrong in [Secret::key_file(&other).unwrap(), words, secret()] {
        let refused = Repository::open(store.clone(), wrong, settings.clone()).await.unwrap_err();
        assert!(matches!(refused, OpenError::WrongSecret), "{refused}");
    }
}

#[test]
fn a_passphrase_file_may_end_its_line_and_is_read_as_typed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("passphrase");
    s3::write_secret(&file, "correct horse\n");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = memory();
        new_repository(store.clone()).await;
        let from_file = Secret::passphrase_file(&file).unwrap();
        Repository::open(store, from_file, EngineSettings::default()).await.unwrap();
    });
}

#[test]
fn secrets_that_prove_nothing_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str, content: &str, mode: u32| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let open = at("open", "0123456789abcdef0123456789abcdef", 0o620);
    assert!(matches!(
        Secret::key_file(&open).unwrap_err(),
        SecretError::WritableByOthers { mode: 0o620, .. }
    ));
    let short = at("short", "0123456789abcdef", 0o600);
    assert!(matches!(Secret::key_file(&short).unwrap_err(), SecretError::KeyTooShort { .. }));
    let empty = at("empty", "\n", 0o600);
    assert!(matches!(Secret::passphrase_file(&empty).unwrap_err(), SecretError::Empty));
    let huge = at("huge", &"x".repeat(100_000), 0o600);
    assert!(matches!(Secret::key_file(&huge).unwrap_err(), SecretError::TooLong { .. }));
    let missing = folder.path().join("missing");
    assert!(matches!(Secret::key_file(&missing).unwrap_err(), SecretError::Unreadable { .. }));
    assert_eq!(format!("{:?}", secret()), "Secret(Passphrase)", "a secret does not print itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_s3_secret_gives_a_clear_error() {
    let server = s3::S3Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    s3::write_secret(&folder.path().join("secret"), "not this one");
    let mut settings = server.settings("place");
    if let Some(s3) = &mut settings.s3 {
        s3.secret_access_key_file = folder.path().join("secret");
    }
    let refused = Repository::open(settings.open().unwrap(), secret(), EngineSettings::default()).await;
    let refused = refused.unwrap_err();
    assert!(matches!(refused, OpenError::Store(StoreError::Failed { .. })), "{refused:?}");
}
