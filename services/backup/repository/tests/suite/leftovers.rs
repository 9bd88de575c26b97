//! What killed processes leave behind in a folder, and that collection takes it away.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use backup_repository::*;
use rand::Rng;

use crate::support::*;

/// Every pack counts as old and every lease as expired.
const RUTHLESS: CollectSettings = CollectSettings {
    pack_age_min: Duration::ZERO,
    lease_timeout: Duration::ZERO,
    rewrite_below_percent: 70,
    rewrite_bytes_max: u64::MAX,
    reencrypt_old_epochs: false,
};
const NOBODY: &str = "01k9nxqz6r3w4v5t8y2b7c1d0e";

fn store(folder: &Path) -> Store {
    StoreSettings::new(format!("file://{}", folder.display()).parse().unwrap()).open_for_init().unwrap()
}

fn leave(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, b"what came so far").unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn what_killed_processes_leave_behind_is_taken_away_by_a_collection() {
    let folder = tempfile::tempdir().unwrap();
    let repository = new_repository(store(folder.path())).await;
    let one = MemoryDisk::new(disk(&mut seeded(), MIB));
    let snapshot = back_up(&repository, request(&one)).await;
    let rosters = format!("keys/{}", repository.id());
    let first = fs::read(folder.path().join(&rosters).join("00000001")).unwrap();
    repository.rotate_keys().await.unwrap();
    let left = [
        // In the middle of a write.
        leave(folder.path(), "data/ab/abcdefabcdefabcdefabcdefabcdefab#1"),
        leave(folder.path(), "index/01k9nxqz6r3w4v5t8y2b7c1d0e#12"),
        leave(folder.path(), "config#1"),
        // Between asking what time it is and removing the clock.
        leave(folder.path(), &format!("leases/{NOBODY}/clock")),
        // Beside a collection that removed the list.
        leave(folder.path(), &format!("condemned/{NOBODY}/waits")),
        // Between committing a roster and removing the one before.
        leave(folder.path(), &format!("{rosters}/00000001")),
    ];
    fs::write(&left[5], first).unwrap();
    repository.collect(RUTHLESS, &Arc::default(), &Cancel::new()).await.unwrap();
    let still: Vec<_> = left.iter().filter(|path| path.exists()).collect();
    assert!(still.is_empty(), "{still:?}");
    assert!(restored(&reopened(store(folder.path())).await, &snapshot).await == one.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_still_be_at_work_and_what_is_not_ours_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let repository = new_repository(store(folder.path())).await;
    let settings = CollectSettings { lease_timeout: Duration::from_mins(15), ..RUTHLESS };
    let staged = leave(folder.path(), "data/ab/abcdefabcdefabcdefabcdefabcdefab#1");
    let theirs = leave(folder.path(), "notes/shopping list#1");
    let clock = leave(folder.path(), &format!("leases/{NOBODY}/clock"));
    repository.collect(settings, &Arc::default(), &Cancel::new()).await.unwrap();
    assert!(staged.exists() && theirs.exists() && clock.exists());
    let an_hour_ago = SystemTime::now() - Duration::from_hours(1);
    for path in [&staged, &theirs, &clock] {
        fs::File::options().write(true).open(path).unwrap().set_modified(an_hour_ago).unwrap();
    }
    repository.collect(settings, &Arc::default(), &Cancel::new()).await.unwrap();
    assert!(!staged.exists() && theirs.exists() && !clock.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_keeps_nothing_of_shards_that_are_no_more() {
    let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    new_repository(store(folder.path())).await;
    let settings = || EngineSettings { cache: Some(cache.path().to_owned()), ..EngineSettings::default() };
    let mut rng = seeded();
    let opened = async || Repository::open(store(folder.path()), secret(), settings()).await.unwrap();
    // Files of shards that are gone stay for a while under another name, for whoever still reads them.
    let kept = |repository: &Repository| {
        let files = fs::read_dir(cache.path().join(repository.id().to_string()).join("index")).unwrap();
        files.filter(|file| file.as_ref().unwrap().path().extension().is_none()).count()
    };
    // Each backup is a process of its own, and so is the collection that merges their shards.
    for _ in 0..20 {
        let mut bytes = vec![0; 20_000];
        rng.fill_bytes(&mut bytes);
        back_up(&opened().await, request(&MemoryDisk::new(bytes))).await;
    }
    let repository = opened().await;
    assert!(kept(&repository) >= 20);
    repository.collect(RUTHLESS, &Arc::default(), &Cancel::new()).await.unwrap();
    let repository = opened().await;
    repository.info().await.unwrap();
    let shards = fs::read_dir(folder.path().join("index")).unwrap().count();
    assert_eq!((kept(&repository), shards), (1, 1));
}
