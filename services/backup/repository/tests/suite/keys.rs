//! Who may open, read and write a repository, and how that changes.

use std::path::Path;
use std::sync::Arc;

use backup_repository::*;
use object_store::memory::InMemory;

use crate::support::fake_store::{FakeStore, Fault, Interruption};
use crate::support::*;

fn words(words: &str) -> Secret {
    Secret::passphrase(words).unwrap()
}

fn settings(cache: Option<&Path>) -> EngineSettings {
    EngineSettings { cache: cache.map(Path::to_owned), ..EngineSettings::default() }
}

async fn open(store: &Store, secret: Secret) -> Result<Repository, OpenError> {
    Repository::open(store.clone(), secret, settings(None)).await
}

async fn add(repository: &Repository, label: &str, role: Role, secret: &str) -> String {
    repository.add_key(label, role, NewKey::Secret(words(secret), cheap())).await.unwrap()
}

fn verify_whole(repository: &Repository) -> impl Future<Output = Result<VerifyReport, VerifyError>> {
    let repository = repository.clone();
    async move { repository.verify(VerifyScope::Everything, &Default::default(), &Cancel::new()).await }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_only_key_backs_up_deduplicates_and_takes_over_what_did_not_change_but_reads_nothing_back() {
    let mut rng = seeded();
    let store = memory();
    let owner = new_repository(store.clone()).await;
    add(&owner, "kvm3", Role::WriteOnly, "only write").await;
    let host = open(&store, words("only write")).await.unwrap();
    assert!(!host.can_read());
    let mut disk = MemoryDisk::tracked(disk(&mut rng, 9 * MIB));
    let first = back_up(&host, request(&disk)).await;
    assert!(first.contents.stats.new_bytes > 0);
    // Opened anew, it knows what is stored, and what its parent holds.
    let host = open(&store, words("only write")).await.unwrap();
    let again = back_up(&host, request(&MemoryDisk::new(disk.bytes.clone()))).await;
    assert_eq!(again.contents.stats.new_bytes, 0);
    disk.write(5 * MIB, b"something else");
    let parent = Some(again.id);
    let third = back_up(&host, BackupRequest { parent, ..request(&disk) }).await;
    assert_eq!(third.contents.stats.segments_read, 1);
    assert_eq!(third.contents.stats.segments_reused, 2);

    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let refused = host.restore_disk(&third, "vda", &out, &Default::default(), &Cancel::new()).await;
    assert!(matches!(refused, Err(RestoreError::Read(ReadError::WriteOnly(_)))), "{refused:?}");
    assert!(matches!(host.definition(&third), Err(ReadError::WriteOnly(_))));
    assert!(verify_whole(&host).await.is_err());
    assert!(matches!(host.rotate_keys().await, Err(KeyError::WriteOnly(_))));
    assert!(matches!(
        host.add_key("x", Role::Full, NewKey::Secret(words("x"), cheap())).await,
        Err(KeyError::WriteOnly(_))
    ));

    assert!(restored(&owner, &third).await == disk.bytes);
    assert_eq!(owner.definition(&third).unwrap(), b"<domain/>");
    assert!(verify_whole(&owner).await.unwrap().is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_opens_the_repository_that_its_recipient_was_added_to() {
    let store = memory();
    let owner = new_repository(store.clone()).await;
    let identity = Identity::generate();
    let stranger = Identity::generate();
    owner.add_key("laptop", Role::Full, NewKey::Recipient(identity.recipient())).await.unwrap();
    assert!(open(&store, Secret::from(&identity)).await.unwrap().can_read());
    assert!(matches!(open(&store, Secret::from(&stranger)).await, Err(OpenError::WrongSecret)));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("identity");
    s3::write_secret(&file, &identity.file());
    assert!(open(&store, Secret::identity_file(&file).unwrap()).await.is_ok());
    let file = folder.path().join("mistyped");
    s3::write_secret(&file, "loam-identity-00");
    assert!(matches!(Secret::identity_file(&file), Err(SecretError::NotAnIdentity { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_listed_labelled_and_removed_but_never_the_last_nor_the_one_in_use_without_proof() {
    let store = memory();
    let owner = new_repository(store.clone()).await;
    let [first] = owner.keys().await.unwrap().try_into().unwrap();
    assert!(first.in_use && first.role == Role::Full && first.kind == "passphrase");
    assert!(matches!(owner.remove_key(&first.id, None).await, Err(KeyError::Last(_))));
    let writer = add(&owner, "host", Role::WriteOnly, "writer").await;
    // A key that cannot read is no other key.
    assert!(matches!(owner.remove_key(&first.id, None).await, Err(KeyError::Last(_))));
    let second = add(&owner, "safe", Role::Full, "second").await;
    assert!(matches!(owner.remove_key(&first.id, None).await, Err(KeyError::InUse(_))));
    for no_proof in ["writer", "unknown", "correct horse"] {
        let refused = owner.remove_key(&first.id, Some(words(no_proof))).await;
        assert!(matches!(refused, Err(KeyError::OtherKeyNotProven)), "{no_proof}: {refused:?}");
    }
    owner.remove_key(&first.id, Some(words("second"))).await.unwrap();
    assert!(matches!(open(&store, words("correct horse")).await, Err(OpenError::WrongSecret)));
    let left = open(&store, words("second")).await.unwrap().keys().await.unwrap();
    let left: Vec<_> = left.iter().map(|key| (key.id.clone(), key.label.as_str(), key.in_use)).collect();
    assert_eq!(left, [(writer, "host", false), (second, "safe", true)]);
    assert!(matches!(owner.remove_key("zzz", None).await, Err(KeyError::Unknown(_))));
    assert!(matches!(
        owner.add_key("", Role::Full, NewKey::Secret(words("x"), cheap())).await,
        Err(KeyError::Label)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_key_opens_nothing_that_is_stored_afterwards_even_where_it_was_open_already() {
    let mut rng = seeded();
    let store = memory();
    let owner = new_repository(store.clone()).await;
    let id = add(&owner, "former", Role::Full, "former").await;
    let former = open(&store, words("former")).await.unwrap();
    let disk = MemoryDisk::new(disk(&mut rng, 2 * MIB));
    let before = back_up(&owner, request(&disk)).await;
    owner.remove_key(&id, None).await.unwrap();
    let other = MemoryDisk::new(crate::support::disk(&mut rng, 2 * MIB));
    let after = back_up(&owner, request(&other)).await;
    assert!(restored(&owner, &before).await == disk.bytes, "what was stored before is read for ever");
    assert!(restored(&owner, &after).await == other.bytes);
    let refused = former.snapshot(after.id).await;
    assert!(
        matches!(refused, Err(SnapshotError::Damaged { source: Damage::UnknownEpoch { epoch: 2 }, .. })),
        "{refused:?}"
    );
    assert!(matches!(former.probe().await, Err(OpenError::KeyRemoved)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_epoch_reaches_who_is_open_already_stores_nothing_twice_and_old_packs_can_be_sealed_anew() {
    let mut rng = seeded();
    let store = memory();
    let owner = new_repository(store.clone()).await;
    add(&owner, "host", Role::WriteOnly, "host").await;
    let host = open(&store, words("host")).await.unwrap();
    let disk = MemoryDisk::new(disk(&mut rng, 5 * MIB));
    let first = back_up(&host, request(&disk)).await;
    assert_eq!(owner.rotate_keys().await.unwrap(), 2);
    let second = back_up(&host, request(&disk)).await;
    assert_eq!(second.contents.stats.new_bytes, 0);
    let settings = CollectSettings {
        pack_age_min: std::time::Duration::ZERO,
        reencrypt_old_epochs: true,
        ..CollectSettings::default()
    };
    let report = owner.collect(settings, &Arc::default(), &Cancel::new()).await.unwrap();
    assert!(report.packs_rewritten >= 2 && report.packs_rewritten == report.packs_deleted, "{report:?}");
    let again = owner.collect(settings, &Arc::default(), &Cancel::new()).await.unwrap();
    assert_eq!((again.packs_rewritten, again.packs_deleted), (0, 0), "{again:?}");
    for snapshot in [&first, &second] {
        assert!(restored(&owner, snapshot).await == disk.bytes);
    }
    assert!(verify_whole(&owner).await.unwrap().is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_roster_or_another_authority_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (place, cache) = (folder.path().join("r"), folder.path().join("cache"));
    let store = || StoreSettings::new(format!("file://{}", place.display()).parse().unwrap());
    let made =
        Repository::init(store().open_for_init().unwrap(), secret(), cheap(), settings(Some(&cache))).await;
    let made = made.unwrap();
    let rosters = place.join("keys").join(made.id().to_string());
    let old = std::fs::read(rosters.join("00000001")).unwrap();
    add(&made, "second", Role::Full, "second").await;
    assert!(!rosters.join("00000001").exists(), "old rosters are removed");
    let newest = std::fs::read(rosters.join("00000002")).unwrap();
    let open = async || Repository::open(store().open().unwrap(), secret(), settings(Some(&cache))).await;
    assert!(open().await.is_ok());
    std::fs::remove_file(rosters.join("00000002")).unwrap();
    std::fs::write(rosters.join("00000001"), &old).unwrap();
    let refused = open().await.unwrap_err();
    assert!(
        matches!(refused, OpenError::KeyPin(KeyPinError::RolledBack { shown: 1, seen: 2, .. })),
        "{refused:?}"
    );
    // Under the newest number it is not what it says.
    std::fs::write(rosters.join("00000002"), &old).unwrap();
    assert!(matches!(open().await.unwrap_err(), OpenError::Damaged { .. }));
    std::fs::write(rosters.join("00000002"), &newest).unwrap();
    assert!(open().await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_concurrent_changes_of_the_keys_one_succeeds_and_the_other_fails() {
    let store = memory();
    let owner = new_repository(store.clone()).await;
    let changes = (0..4).map(|number| {
        let owner = owner.clone();
        async move {
            let secret = NewKey::Secret(words(&format!("secret {number}")), cheap());
            owner.add_key("at once", Role::Full, secret).await
        }
    });
    let outcomes = futures::future::join_all(changes).await;
    let added = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(_) | Err(KeyError::ChangedMeanwhile))));
    assert_eq!(owner.keys().await.unwrap().len(), 1 + added);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_keys_that_later_ones_do_not_know_of_fails() {
    let objects = Arc::new(InMemory::new());
    let owner = new_repository(Store::new(objects.clone())).await;
    let other = owner.clone();
    let two_changes: Interruption = Box::new(move || {
        let other = other.clone();
        Box::pin(async move {
            for label in ["second", "third"] {
                other.add_key(label, Role::Full, NewKey::Secret(words(label), cheap())).await.unwrap();
            }
        })
    });
    let delayed = FakeStore::faulty(&objects, 0, Fault::Interrupt(two_changes));
    let late = open(&Store::new(Arc::new(delayed)), secret()).await.unwrap();
    let added = late.add_key("late", Role::Full, NewKey::Secret(words("late"), cheap())).await;
    assert!(matches!(added, Err(KeyError::ChangedMeanwhile)), "{added:?}");
    assert_eq!(owner.keys().await.unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_change_while_a_repository_is_opened_are_not_taken_for_old_ones_put_back() {
    let (place, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = StoreSettings::new(format!("file://{}", place.path().display()).parse().unwrap());
    let settings = || EngineSettings { cache: Some(cache.path().to_owned()), ..EngineSettings::default() };
    let store = store.open_for_init().unwrap();
    let first = Repository::init(store.clone(), secret(), cheap(), settings()).await.unwrap();
    // Two processes of one host change the keys, and a third opens the repository again and again.
    let rotating = tokio::spawn(async move {
        for _ in 0..60 {
            first.rotate_keys().await.unwrap();
        }
    });
    let mut opened = 0;
    while !rotating.is_finished() {
        let repository = Repository::open(store.clone(), secret(), settings()).await.unwrap();
        repository.probe().await.unwrap();
        opened += 1;
    }
    rotating.await.unwrap();
    println!("opened {opened} times");
}
