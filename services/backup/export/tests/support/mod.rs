//! Disks, tools and servers that the tests share.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

pub mod client;
pub mod images;

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use backup_export::nbd::{Export, ListenAddress, NbdServer, ServerSettings};
use backup_repository::source::Extent;
use backup_repository::{DiskSource, RawFile, SourceError};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;

pub const MIB: u64 = 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(60);

/// Whether these programs are there. Missing is an error where tests must be complete (`CI=true`).
pub fn have(tools: &[&str]) -> bool {
    let missing: Vec<_> = tools.iter().filter(|tool| find(tool).is_none()).collect();
    assert!(missing.is_empty() || std::env::var("CI").as_deref() != Ok("true"), "not installed: {missing:?}");
    if !missing.is_empty() {
        println!("skipped: not installed: {missing:?}");
    }
    missing.is_empty()
}

fn find(tool: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    let folders = std::env::split_paths(&folders).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(tool)).find(|path| path.is_file())
}

/// Runs a tool to its end, off the runtime's threads: its server may run on them.
pub async fn output(tool: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(find(tool).expect("the tool was found before"));
    command.args(arguments).stdin(Stdio::null());
    let running = tokio::task::spawn_blocking(move || command.output().unwrap());
    tokio::time::timeout(TIMEOUT, running).await.expect("the tool ends in time").unwrap()
}

/// Runs a tool that must succeed, and returns what it printed.
pub async fn run(tool: &str, arguments: &[&str]) -> String {
    let output = output(tool, arguments).await;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{tool} {arguments:?}: {printed}{errors}");
    printed
}

/// A random number generator whose seed is printed.
pub fn seeded() -> StdRng {
    let seed = rand::random();
    println!("seed {seed}");
    StdRng::seed_from_u64(seed)
}

/// A sparse file of `size_bytes` with random bytes between the two offsets of each pair.
pub fn sparse_image(path: &Path, size_bytes: u64, data: &[(u64, u64)]) {
    let mut random = seeded();
    let file = File::create_new(path).unwrap();
    file.set_len(size_bytes).unwrap();
    for (from, to) in data {
        let mut bytes = vec![0; (to - from) as usize];
        random.fill(&mut bytes[..]);
        file.write_all_at(&bytes, *from).unwrap();
    }
}

/// A raw image as a source.
pub fn raw(path: &Path) -> Arc<dyn DiskSource> {
    Arc::new(RawFile::open(path).unwrap())
}

/// Serves on a socket in a folder.
pub async fn serve(folder: &Path, exports: Vec<Export>, settings: ServerSettings) -> NbdServer {
    NbdServer::start(&ListenAddress::Unix(folder.join("nbd.sock")), exports, settings).await.unwrap()
}

pub fn same_bytes(one: &Path, other: &Path) -> bool {
    std::fs::read(one).unwrap() == std::fs::read(other).unwrap()
}

/// Waits until something holds.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !holds() {
        assert!(Instant::now() < deadline, "timed out: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A source that counts reads, can hold back those of some offsets, and can be made to fail.
pub struct Gated {
    below: Arc<dyn DiskSource>,
    held: Range<u64>,
    open: watch::Sender<bool>,
    broken: watch::Sender<bool>,
    pub reads: AtomicUsize,
}

impl Gated {
    pub fn new(below: Arc<dyn DiskSource>, held: Range<u64>) -> Arc<Gated> {
        let (open, broken) = (watch::Sender::new(false), watch::Sender::new(false));
        Arc::new(Gated { below, held, open, broken, reads: AtomicUsize::new(0) })
    }

    /// Lets the reads go that were held back, and all that come.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    pub fn break_down(&self, broken: bool) {
        self.broken.send_replace(broken);
    }

    pub fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl DiskSource for Gated {
    fn size_bytes(&self) -> u64 {
        self.below.size_bytes()
    }

    async fn extents(&self, range: Range<u64>) -> Result<Vec<Extent>, SourceError> {
        self.below.extents(range).await
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, SourceError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if self.held.contains(&offset) {
            self.open.subscribe().wait_for(|open| *open).await.unwrap();
        }
        if *self.broken.borrow() {
            return Err(SourceError::Protocol {
                what: "the store".into(),
                why: "it was broken by the test".into(),
            });
        }
        self.below.read_at(offset, length).await
    }
}
