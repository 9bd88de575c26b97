//! What networks, servers and credentials do to work on an S3 store: it succeeds, or ends with a clear error within a
//! bound, and when the fault is gone the same work succeeds and nothing sealed was lost.

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use backup_repository::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::support::proxy::{Fault, Plan, Proxy};
use crate::support::s3::S3Server;
use crate::support::*;

/// Whatever fails, work ends within this: a commit, the check whether it was made and cleaning up, each with its retries.
const BOUND: Duration = Duration::from_secs(40);

const LASTING: [Fault; 10] = [
    Fault::Answer("500 Internal Server Error", "InternalError"),
    Fault::Answer("403 Forbidden", "InvalidAccessKeyId"),
    Fault::Answer("400 Bad Request", "ExpiredToken"),
    Fault::Hang,
    Fault::ArriveLate,
    Fault::ResetInRequest,
    Fault::LoseAnswer,
    Fault::ResetInAnswer,
    Fault::Truncate,
    Fault::Drip,
];

/// The text of the error of a lasting fault; `None` where work may succeed in spite of it.
fn expected_text(fault: Fault) -> Option<&'static str> {
    match fault {
        Fault::Answer("500 Internal Server Error", _) => Some("500"),
        Fault::Answer(_, code) => Some(code),
        Fault::Hang | Fault::ArriveLate => Some("timed out"),
        Fault::ResetInRequest | Fault::LoseAnswer => Some("error sending request"),
        Fault::ResetInAnswer | Fault::Truncate | Fault::Drip => None,
    }
}

fn chain(error: &dyn Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Tries once more what took too long, as machines stand still for a moment.
fn with_short_timeouts(mut settings: StoreSettings) -> Store {
    settings.connect_timeout = Duration::from_secs(1);
    settings.request_timeout = Duration::from_secs(2);
    settings.retries_max = 3;
    settings.retry_timeout = Duration::from_secs(3);
    settings.open().unwrap()
}

fn with_retries(mut settings: StoreSettings) -> Store {
    settings.request_timeout = Duration::from_secs(2);
    settings.retry_timeout = Duration::from_secs(30);
    settings.open().unwrap()
}

/// A line to the server that can be broken.
struct Line {
    proxy: Proxy,
    broken_from: Arc<AtomicUsize>,
    store: Store,
}

impl Line {
    async fn new(server: &S3Server, place: &str, fault: Fault) -> Line {
        let broken_from = Arc::new(AtomicUsize::new(usize::MAX));
        let from = Arc::clone(&broken_from);
        let plan: Plan =
            Arc::new(move |request| (request.number >= from.load(Ordering::SeqCst)).then_some(fault));
        let proxy = Proxy::start(server.port(), plan).await;
        let store = with_short_timeouts(server.settings_by(proxy.port(), place));
        Line { proxy, broken_from, store }
    }

    fn break_after(&self, requests: usize) {
        self.broken_from.store(self.proxy.requests() + requests, Ordering::SeqCst);
    }

    fn mend(&self) {
        self.broken_from.store(usize::MAX, Ordering::SeqCst);
    }
}

#[derive(Clone, Copy, Debug)]
enum Work {
    BackUp,
    Restore,
    Collect,
}

const EAGER: CollectSettings = CollectSettings {
    pack_age_min: Duration::ZERO,
    lease_timeout: Duration::from_secs(3600),
    rewrite_below_percent: 100,
    rewrite_bytes_max: u64::MAX,
    reencrypt_old_epochs: false,
};

/// A repository with a snapshot that must survive, one that is to be collected, and a disk to back up.
struct Place {
    line: Line,
    repository: Repository,
    kept: Snapshot,
    disk: MemoryDisk,
    next: MemoryDisk,
}

impl Place {
    async fn new(server: &S3Server, name: &str, fault: Fault, mut rng: StdRng) -> Place {
        let line = Line::new(server, name, fault).await;
        let repository = new_repository(line.store.clone()).await;
        let disk = MemoryDisk::new(disk(&mut rng, 4 * MIB));
        let kept = back_up(&repository, request(&disk)).await;
        let mut next = disk.clone();
        use_for_a_day(&mut rng, &mut next);
        next.bytes.rotate_left(1_000_001);
        let forgotten = back_up(&repository, request(&next)).await;
        repository.forget(forgotten.id).await.unwrap();
        next.bytes.rotate_left(1_000_001);
        Place { line, repository, kept, disk, next }
    }

    async fn work(&self, work: Work) -> Result<(), Box<dyn Error + Send + Sync>> {
        let (progress, cancel) = (Arc::default(), Cancel::new());
        match work {
            Work::BackUp => {
                self.repository.backup(request(&self.next), &progress, &cancel).await?;
            }
            Work::Restore => {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("vda.raw");
                // Another process, which knows nothing of the packs yet.
                let repository =
                    Repository::open(self.line.store.clone(), secret(), EngineSettings::default()).await?;
                repository.restore_disk(&self.kept, "vda", &path, &progress, &cancel).await?;
                assert!(std::fs::read(path).unwrap() == self.disk.bytes);
            }
            Work::Collect => {
                self.repository.collect(EAGER, &Arc::default(), &cancel).await?;
            }
        }
        Ok(())
    }

    async fn is_whole(&self) {
        let repository = reopened(self.line.store.clone()).await;
        let snapshots = repository.snapshots().await.unwrap();
        assert!(snapshots.contains(&self.kept), "nothing sealed is lost");
        for snapshot in &snapshots {
            let expected = if *snapshot == self.kept { &self.disk } else { &self.next };
            assert!(restored(&repository, snapshot).await == expected.bytes);
        }
        let report =
            repository.verify(VerifyScope::Everything, &Arc::default(), &Cancel::new()).await.unwrap();
        assert!(report.is_sound(), "{report:?}");
    }
}

/// Does some work while the line breaks at some moment, for each kind of fault, and once more when it is mended.
async fn broken_and_mended(work: Work, good_requests_max: usize) {
    let server = S3Server::start_and_warm_up().await;
    let mut rng = seeded();
    let runs = LASTING.into_iter().enumerate().map(|(index, fault)| {
        let (good, rng) = (rng.random_range(0..good_requests_max), StdRng::from_rng(&mut rng));
        let server = &server;
        async move {
            let place = Place::new(server, &format!("place-{index}"), fault, rng).await;
            place.line.break_after(good);
            let began = Instant::now();
            let outcome = place.work(work).await;
            let took = began.elapsed();
            let chain = outcome.map_err(|error| chain(&*error));
            println!("{fault:?} after {good} requests, {} ms: {chain:?}", took.as_millis());
            assert!(took < BOUND, "{fault:?} after {good} requests: {took:?}");
            match (&chain, expected_text(fault)) {
                (Err(error), Some(text)) => assert!(error.contains(text), "{fault:?}: {error}"),
                (Ok(()), Some(_)) => panic!("{fault:?} after {good} requests cannot be overcome"),
                (_, None) => {}
            }
            place.line.mend();
            place.work(work).await.unwrap();
            place.is_whole().await;
        }
    });
    futures::future::join_all(runs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_over_a_broken_line_ends_with_a_clear_error_and_succeeds_when_it_is_mended() {
    broken_and_mended(Work::BackUp, 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_over_a_broken_line_ends_with_a_clear_error_and_succeeds_when_it_is_mended() {
    broken_and_mended(Work::Restore, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_over_a_broken_line_ends_with_a_clear_error_and_succeeds_when_it_is_mended() {
    broken_and_mended(Work::Collect, 12).await;
}

/// Everything that writes, on a line that has its state: all of it must succeed at the first attempt.
async fn all_kinds_of_work(store: Store, rng: &mut StdRng) {
    let repository = new_repository(store.clone()).await;
    let key = NewKey::Secret(Secret::passphrase("another").unwrap(), cheap());
    repository.add_key("another", Role::Full, key).await.unwrap();
    let (mut disk, mut kept) = (MemoryDisk::new(disk(rng, 4 * MIB)), Vec::new());
    for _ in 0..3 {
        kept.push((back_up(&repository, request(&disk)).await, disk.bytes.clone()));
        repository.rotate_keys().await.unwrap();
        use_for_a_day(rng, &mut disk);
        disk.bytes.rotate_left(1_000_001);
    }
    let (forgotten, _) = kept.remove(0);
    repository.forget(forgotten.id).await.unwrap();
    repository.collect(EAGER, &Arc::default(), &Cancel::new()).await.unwrap();
    let repository = reopened(store).await;
    assert_eq!(repository.snapshots().await.unwrap().len(), kept.len(), "none is there twice");
    assert_eq!(repository.keys().await.unwrap().len(), 2);
    assert_eq!(repository.info().await.unwrap().epoch, 4, "no rotation was done twice");
    for (snapshot, bytes) in &kept {
        assert!(restored(&repository, snapshot).await == *bytes);
    }
    let report = repository.verify(VerifyScope::Everything, &Arc::default(), &Cancel::new()).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_and_not_answered_counts_as_done() {
    let server = S3Server::start_and_warm_up().await;
    let changes = AtomicUsize::new(0);
    // Of what changes something every second answer is lost: no attempt is lost twice in a row.
    let plan: Plan = Arc::new(move |request| {
        let is_change = ["PUT", "POST", "DELETE"].contains(&request.method.as_str());
        (is_change && changes.fetch_add(1, Ordering::SeqCst).is_multiple_of(2)).then_some(Fault::LoseAnswer)
    });
    let proxy = Proxy::start(server.port(), plan).await;
    all_kinds_of_work(with_short_timeouts(server.settings_by(proxy.port(), "lost")), &mut seeded()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_now_and_then_is_overcome() {
    const PASSING: [Fault; 7] = [
        Fault::Answer("500 Internal Server Error", "InternalError"),
        Fault::Answer("503 Slow Down", "SlowDown"),
        Fault::Hang,
        Fault::ArriveLate,
        Fault::ResetInRequest,
        Fault::LoseAnswer,
        Fault::ResetInAnswer,
    ];
    let server = S3Server::start_and_warm_up().await;
    let mut rng = seeded();
    let state = Mutex::new((StdRng::from_rng(&mut rng), true));
    // One in eight goes wrong, and never two in a row.
    let plan: Plan = Arc::new(move |_| {
        let (rng, healthy) = &mut *state.lock().unwrap();
        *healthy = *healthy && rng.random_ratio(1, 8);
        let fault = healthy.then(|| PASSING[rng.random_range(0..PASSING.len())]);
        *healthy = fault.is_none();
        fault
    });
    let proxy = Proxy::start(server.port(), plan).await;
    all_kinds_of_work(with_retries(server.settings_by(proxy.port(), "faults")), &mut rng).await;
}

/// A commit is not sent again by the client itself, as it is not known to have failed: these are the moments at which
/// that only a check can find out.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_lost_and_lost_again_or_arrives_late_is_made_once() {
    const LOST: [Fault; 3] = [Fault::Hang, Fault::ResetInRequest, Fault::ArriveLate];
    let server = S3Server::start_and_warm_up().await;
    let creates = Arc::new(AtomicUsize::new(LOST.len()));
    let count = Arc::clone(&creates);
    let plan: Plan = Arc::new(move |request| {
        request.is_create.then(|| LOST.get(count.fetch_add(1, Ordering::SeqCst)).copied())?
    });
    let proxy = Proxy::start(server.port(), plan).await;
    let repository = new_repository(with_retries(server.settings_by(proxy.port(), "commit"))).await;
    let disk = MemoryDisk::new(disk(&mut seeded(), MIB));
    let draft = repository.copy(request(&disk), &Arc::default(), &Cancel::new()).await.unwrap();
    creates.store(0, Ordering::SeqCst);
    let id = SnapshotId::generate();
    assert_eq!(repository.seal(&draft, id).await.unwrap().id, id);
    assert!(creates.load(Ordering::SeqCst) > LOST.len());
    assert_eq!(repository.snapshots().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_create_one_thing_at_once_one_succeeds_and_all_know_it() {
    let server = S3Server::start_and_warm_up().await;
    let store = || server.store("race");
    let inits = (0..4).map(|_| Repository::init(store(), secret(), cheap(), EngineSettings::default()));
    let made = futures::future::join_all(inits).await;
    let refused =
        |error: &OpenError| matches!(error, OpenError::RepositoryExists | OpenError::NotARepository);
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 1, "{made:?}");
    assert!(made.iter().filter_map(|made| made.as_ref().err()).all(refused), "{made:?}");

    let disk = MemoryDisk::new(disk(&mut seeded(), MIB));
    let opened = futures::future::join_all((0..4).map(|_| reopened(store()))).await;
    let draft = opened[0].copy(request(&disk), &Arc::default(), &Cancel::new()).await.unwrap();
    let id = SnapshotId::generate();
    let sealed = futures::future::join_all(opened.iter().map(|each| each.seal(&draft, id))).await;
    assert!(sealed.iter().all(|sealed| sealed.as_ref().is_ok_and(|one| one.id == id)), "{sealed:?}");

    let rotated = futures::future::join_all(opened.iter().map(Repository::rotate_keys)).await;
    let done = rotated.iter().filter(|rotated| rotated.is_ok()).count();
    let lost = |error: &KeyError| matches!(error, KeyError::ChangedMeanwhile);
    assert!(rotated.iter().filter_map(|rotated| rotated.as_ref().err()).all(lost), "{rotated:?}");
    let repository = reopened(store()).await;
    assert_eq!(repository.info().await.unwrap().epoch as usize, 1 + done, "{rotated:?}");
    assert!(restored(&repository, &repository.snapshots().await.unwrap()[0]).await == disk.bytes);
}
