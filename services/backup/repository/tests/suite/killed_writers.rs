//! Backups, forgetting, collections and key rotations that are killed at any moment, and processes that do all of it at
//! once: no sealed snapshot is lost, and what is left behind goes with the next collection.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backup_repository::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::support::*;

/// The work of the child below, when this binary runs itself.
const ORDER: &str = "LOAM_TEST_WORK";
const DISK_BYTES: usize = 5 * MIB;
const KILLS: usize = 60;
/// A child is killed at most so long after it has begun: longer than any work here takes.
const LIFE_MAX: Duration = Duration::from_millis(250);
/// So many snapshots are kept; more only make checking slow.
const SNAPSHOTS_MAX: usize = 4;

/// Rewrites everything that is not wholly needed. No live process is without a heartbeat for so long.
const LONG_LEASES: CollectSettings = CollectSettings {
    pack_age_min: Duration::ZERO,
    lease_timeout: Duration::from_secs(120),
    rewrite_below_percent: 90,
    rewrite_bytes_max: u64::MAX,
    reencrypt_old_epochs: true,
};
/// Every lease is expired, and every pack rewritten: what is left is needed.
const LAST: CollectSettings =
    CollectSettings { lease_timeout: Duration::ZERO, rewrite_below_percent: 101, ..LONG_LEASES };

/// A disk that shares most with all others of this test, and differs by its seed.
fn disk_of(seed: u64) -> MemoryDisk {
    let mut disk = MemoryDisk::new(disk(&mut StdRng::seed_from_u64(0), DISK_BYTES));
    let mut rng = StdRng::seed_from_u64(seed);
    (0..4).for_each(|_| use_for_a_day(&mut rng, &mut disk));
    disk
}

async fn opened(folder: &Path) -> Repository {
    let settings = StoreSettings::new(format!("file://{}/store", folder.display()).parse().unwrap());
    let cache = Some(folder.join("cache"));
    let engine = EngineSettings { cache, ..EngineSettings::default() };
    Repository::open(settings.open().unwrap(), secret(), engine).await.unwrap()
}

/// Prints a line for the parent process, at once.
fn print_line(line: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n> {line}").unwrap();
    out.flush().unwrap();
}

async fn back_up_for_ever(repository: &Repository, mut seed: u64) {
    let mut mine = Vec::new();
    loop {
        let request = BackupRequest { machine: format!("seed {seed}"), ..request(&disk_of(seed)) };
        let draft = repository.copy(request, &Arc::default(), &Cancel::new()).await.unwrap();
        let id = SnapshotId::generate();
        print_line(format_args!("sealing {id} {seed}"));
        repository.seal(&draft, id).await.unwrap();
        print_line(format_args!("sealed {id} {seed}"));
        mine.push(id);
        if mine.len() > SNAPSHOTS_MAX {
            let oldest = mine.remove(0);
            print_line(format_args!("forgetting {oldest}"));
            repository.forget(oldest).await.unwrap();
        }
        seed += 1;
    }
}

async fn collect_for_ever(repository: &Repository) {
    loop {
        let report = repository.collect(LONG_LEASES, &Arc::default(), &Cancel::new()).await.unwrap();
        print_line(format_args!("collected {}", report.packs_deleted));
    }
}

async fn forget_and_collect(repository: &Repository, ids: &str) {
    for id in ids.split_whitespace() {
        print_line(format_args!("forgetting {id}"));
        repository.forget(id.parse().unwrap()).await.unwrap();
    }
    repository.collect(LAST, &Arc::default(), &Cancel::new()).await.unwrap();
    collect_for_ever(repository).await;
}

async fn rotate_for_ever(repository: &Repository) {
    loop {
        let epoch = repository.rotate_keys().await.unwrap();
        print_line(format_args!("rotated {epoch}"));
    }
}

/// The part of the one who is killed. Without an order there is nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn the_child_does_what_it_is_ordered() {
    let Ok(order) = std::env::var(ORDER) else { return };
    let [folder, work, with] = order.splitn(3, '|').collect::<Vec<_>>().try_into().unwrap();
    let repository = opened(Path::new(folder)).await;
    print_line(format_args!("begun"));
    match work {
        "back up" => back_up_for_ever(&repository, with.parse().unwrap()).await,
        "collect" => collect_for_ever(&repository).await,
        "forget" => forget_and_collect(&repository, with).await,
        _ => rotate_for_ever(&repository).await,
    }
}

/// A child at work.
struct Work {
    child: Child,
    said: std::io::Lines<BufReader<ChildStdout>>,
}

impl Work {
    fn begin(folder: &Path, work: &str, with: &str) -> Work {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "killed_writers::the_child_does_what_it_is_ordered"])
            .env(ORDER, format!("{}|{work}|{with}", folder.display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut begun = Work { child, said };
        assert_eq!(begun.next_line().as_deref(), Some("begun"), "{work}");
        begun
    }

    /// The next line that the child prints; `None` when it is dead.
    fn next_line(&mut self) -> Option<String> {
        self.said.by_ref().map_while(Result::ok).find_map(|line| line.strip_prefix("> ").map(str::to_owned))
    }

    /// Kills it, and returns all lines that were not read yet.
    fn kill(mut self) -> Vec<String> {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "it ended by itself: {ended:?}");
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::iter::from_fn(|| self.next_line()).collect()
    }
}

/// What must exist, and what may exist, by all lines.
#[derive(Default)]
struct Known {
    sealed: BTreeMap<SnapshotId, u64>,
    /// What may exist, as its sealing was begun, or may not, as its forgetting was.
    unsure: BTreeMap<SnapshotId, u64>,
    epoch: u32,
    collected: u64,
}

impl Known {
    fn note(&mut self, words: &str) {
        match *words.split(' ').collect::<Vec<_>>() {
            ["sealing", id, seed] => drop(self.unsure.insert(id.parse().unwrap(), seed.parse().unwrap())),
            ["sealed", id, seed] => drop(self.sealed.insert(id.parse().unwrap(), seed.parse().unwrap())),
            ["forgetting", id] => {
                let id = id.parse().unwrap();
                let seed = self.sealed.remove(&id).or_else(|| self.unsure.get(&id).copied());
                self.unsure.insert(id, seed.unwrap());
            }
            ["rotated", epoch] => self.epoch = epoch.parse().unwrap(),
            ["collected", packs] => self.collected += packs.parse::<u64>().unwrap(),
            _ => panic!("{words}"),
        }
    }

    fn note_all(&mut self, words: Vec<String>) {
        words.iter().for_each(|words| self.note(words));
    }

    /// No sealed snapshot is lost, everything verifies, and the keys are whole.
    async fn holds(&mut self, folder: &Path) -> Repository {
        let repository = opened(folder).await;
        let found: BTreeSet<_> = repository.snapshot_ids().await.unwrap().into_iter().collect();
        for id in self.sealed.keys() {
            assert!(found.contains(id), "{id} was sealed and is lost");
        }
        for id in &found {
            assert!(self.sealed.contains_key(id) || self.unsure.contains_key(id), "no process sealed {id}");
        }
        let unsure = std::mem::take(&mut self.unsure);
        self.sealed.extend(unsure.into_iter().filter(|(id, _)| found.contains(id)));
        let report =
            repository.verify(VerifyScope::Everything, &Arc::default(), &Cancel::new()).await.unwrap();
        assert!(report.is_sound(), "{report:?}");
        let epoch = repository.info().await.unwrap().epoch;
        assert!(epoch >= self.epoch, "epoch {} had begun", self.epoch);
        repository
    }

    /// Everything verifies and restores, and one collection leaves nothing that is not needed.
    async fn holds_for_good(&mut self, folder: &Path) {
        let repository = self.holds(folder).await;
        repository.collect(LAST, &Arc::default(), &Cancel::new()).await.unwrap();
        let repository = self.holds(folder).await;
        for snapshot in repository.snapshots().await.unwrap() {
            let disk = disk_of(self.sealed[&snapshot.id]);
            assert!(restored(&repository, &snapshot).await == disk.bytes, "{}", snapshot.id);
        }
        // The other reader knows nothing of index and collection: it counts.
        s3::write_secret(&folder.join("words"), "correct horse");
        let read = python::read(&folder.join("store"), "--passphrase-file", &folder.join("words"));
        let read = python::parsed(&read);
        assert_eq!(read["blobs"], read["blobs_needed"], "every copy in the store is needed");
        assert_eq!(read["snapshots"].as_array().unwrap().len(), self.sealed.len());
        let mut left = Vec::new();
        files_in(&folder.join("store"), &mut left);
        left.retain(|path| {
            let name = path.strip_prefix(folder.join("store")).unwrap().to_str().unwrap();
            // The stored times of verifications are bounded.
            let wanted = ["config", "keys/", "data/", "meta/", "index/", "snapshots/", "verified/"];
            // An expired lease is kept until its holder cannot come back.
            let of_the_dead = name.starts_with("leases/") && !name.ends_with("clock");
            name.contains('#') || !(of_the_dead || wanted.iter().any(|folder| name.starts_with(folder)))
        });
        assert!(left.is_empty(), "{left:?}");
    }
}

async fn prepared() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}/store", folder.path().display()).parse().unwrap();
    new_repository(StoreSettings::new(url).open_for_init().unwrap()).await;
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_at_whatever_moment_loses_nothing_and_leaves_nothing_for_good() {
    let mut rng = seeded();
    let folder = prepared().await;
    let folder = folder.path();
    let mut known = Known::default();
    let mut kill = 0;
    // On a busy machine most may die before they have done anything.
    while kill < KILLS || known.epoch <= 2 || known.sealed.is_empty() {
        assert!(kill < 20 * KILLS, "no process ever finishes anything");
        let (work, with) = match rng.random_range(0..10) {
            0..5 => ("back up", (kill * 1000).to_string()),
            5..8 => {
                let surplus = known.sealed.len().saturating_sub(SNAPSHOTS_MAX);
                let ids: Vec<_> = known.sealed.keys().take(surplus).map(SnapshotId::to_string).collect();
                ("forget", ids.join(" "))
            }
            _ => ("rotate", String::new()),
        };
        let work = Work::begin(folder, work, &with);
        // The moment is what this test varies.
        std::thread::sleep(rng.random_range(Duration::ZERO..LIFE_MAX));
        known.note_all(work.kill());
        known.holds(folder).await;
        kill += 1;
    }
    known.holds_for_good(folder).await;
}

/// Goes on until every process has reported something, or it takes too long.
fn until_all_have_worked(works: &mut [(Work, u64)], known: &mut Known, turns: usize) {
    let give_up = Instant::now() + Duration::from_secs(60);
    for _ in 0..turns {
        for (work, _) in works.iter_mut() {
            let said = work.next_line().expect("it is alive");
            known.note(&said);
        }
        assert!(Instant::now() < give_up, "they block each other");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_and_a_collector_at_once_do_each_other_no_harm_and_neither_does_killing_them() {
    let mut rng = seeded();
    let folder = prepared().await;
    let folder = folder.path();
    let mut known = Known::default();
    let begin = |work: &str, seed: u64| (Work::begin(folder, work, &seed.to_string()), seed);
    let mut works = vec![begin("back up", 0), begin("back up", 1_000_000), begin("collect", 0)];
    until_all_have_worked(&mut works, &mut known, 30);
    // Packs are deleted while others write.
    let give_up = Instant::now() + Duration::from_secs(60);
    while known.collected == 0 {
        assert!(Instant::now() < give_up, "nothing is ever collected");
        until_all_have_worked(&mut works, &mut known, 1);
    }
    for _ in 0..12 {
        until_all_have_worked(&mut works, &mut known, 2);
        let victim = rng.random_range(0..works.len());
        let (work, seed) = works.remove(victim);
        known.note_all(work.kill());
        let work = if victim == 2 { "collect" } else { "back up" };
        works.insert(victim, begin(work, seed + 1000));
    }
    works.into_iter().for_each(|(work, _)| known.note_all(work.kill()));
    known.holds_for_good(folder).await;
}
