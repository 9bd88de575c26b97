//! The store of tests and benchmarks: objects in memory that are counted, answer slowly, or fail at a chosen write.

use std::fmt;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicIsize, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Something that is done while a write waits.
pub(crate) type Interruption = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// What happens at the chosen write.
pub(crate) enum Fault {
    /// It and all later ones fail, as if the store had gone.
    Refuse,
    /// It alone fails.
    RefuseOnce,
    /// It and all later ones never end.
    Hang,
    /// The first one in this folder never ends, whatever was chosen.
    HangOnceIn(&'static str),
    /// It is done, but the answer is an error.
    LoseTheAnswer,
    /// Objects in this folder are confirmed and not kept.
    Forget(&'static str),
    /// Something else is done before it; then all goes on as always.
    Interrupt(Interruption),
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fault")
    }
}

/// How many requests there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Requests {
    pub(crate) writes: u64,
    /// Reads that found something.
    pub(crate) reads: u64,
    /// The bytes of these.
    pub(crate) read_bytes: u64,
    /// All but writes. A listing counts as one, as long as it has no more than a thousand names.
    pub(crate) others: u64,
}

impl std::ops::Sub for Requests {
    type Output = Requests;

    fn sub(self, before: Requests) -> Requests {
        Requests {
            writes: self.writes - before.writes,
            reads: self.reads - before.reads,
            read_bytes: self.read_bytes - before.read_bytes,
            others: self.others - before.others,
        }
    }
}

#[derive(Debug)]
pub(crate) struct FakeStore {
    objects: Arc<InMemory>,
    fault: Option<Fault>,
    /// Writes before the chosen one; below zero when it has come.
    writes_left: AtomicIsize,
    delays: Option<Mutex<StdRng>>,
    writes: AtomicU64,
    reads: AtomicU64,
    read_bytes: AtomicU64,
    others: AtomicU64,
}

impl FakeStore {
    /// A store that counts its requests.
    pub(crate) fn counting(objects: Arc<InMemory>) -> FakeStore {
        FakeStore {
            objects,
            fault: None,
            writes_left: AtomicIsize::new(0),
            delays: None,
            writes: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            read_bytes: AtomicU64::new(0),
            others: AtomicU64::new(0),
        }
    }

    /// A store that fails at the write after `writes` good ones.
    pub(crate) fn faulty(objects: &Arc<InMemory>, writes: usize, fault: Fault) -> FakeStore {
        FakeStore {
            fault: Some(fault),
            writes_left: AtomicIsize::new(writes.try_into().unwrap()),
            ..FakeStore::counting(Arc::clone(objects))
        }
    }

    /// A store whose answers take random times, so that everything interleaves.
    pub(crate) fn slow(objects: Arc<InMemory>, seed: u64) -> FakeStore {
        let delays = Some(Mutex::new(StdRng::seed_from_u64(seed)));
        FakeStore { delays, ..FakeStore::counting(objects) }
    }

    /// The requests until now.
    pub(crate) fn requests(&self) -> Requests {
        let count = |counter: &AtomicU64| counter.load(SeqCst);
        Requests {
            writes: count(&self.writes),
            reads: count(&self.reads),
            read_bytes: count(&self.read_bytes),
            others: count(&self.others),
        }
    }

    /// Good writes that are still to come.
    pub(crate) fn writes_left(&self) -> usize {
        self.writes_left.load(SeqCst).try_into().unwrap_or(0)
    }

    /// Whether the chosen write came.
    pub(crate) fn has_failed(&self) -> bool {
        self.writes_left.load(SeqCst) < 0
    }

    /// Mostly no delay, sometimes a long one.
    async fn delay(&self) {
        let Some(delays) = &self.delays else { return };
        let micros = {
            let mut rng = delays.lock().unwrap();
            match rng.random_range(0..20) {
                0..10 => 0,
                10..19 => rng.random_range(0..1500),
                _ => rng.random_range(0..40_000),
            }
        };
        tokio::time::sleep(Duration::from_micros(micros)).await;
    }

    /// What the fault makes of a write: its answer where it is not to be carried out, else whether that is lost.
    async fn fail(&self, path: &Path) -> Result<Write> {
        let Some(fault) = &self.fault else { return Ok(Write::CarryOut) };
        let counts = match fault {
            Fault::HangOnceIn(folder) => path.as_ref().starts_with(folder),
            _ => true,
        };
        // Below zero it stays at -1, so that an interruption happens once.
        let left = match counts {
            true => self.writes_left.fetch_update(SeqCst, SeqCst, |left| Some((left - 1).max(-1))).unwrap(),
            false => 1,
        };
        match fault {
            Fault::Forget(folder) if path.as_ref().starts_with(folder) => return Ok(Write::Drop),
            Fault::Forget(_) => {}
            Fault::Interrupt(interrupt) if left == 0 => interrupt().await,
            Fault::Interrupt(_) => {}
            _ if left > 0 => {}
            Fault::RefuseOnce | Fault::HangOnceIn(_) if left < 0 => {}
            Fault::Refuse | Fault::RefuseOnce => return Err(broken()),
            Fault::Hang | Fault::HangOnceIn(_) => futures::future::pending().await,
            Fault::LoseTheAnswer => return Ok(Write::LoseTheAnswer),
        }
        Ok(Write::CarryOut)
    }
}

/// What is done with one write.
enum Write {
    CarryOut,
    /// It is confirmed and not kept.
    Drop,
    /// It is carried out, and its answer is an error.
    LoseTheAnswer,
}

fn broken() -> Error {
    Error::Generic { store: "fake", source: "the connection is broken".into() }
}

impl fmt::Display for FakeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

#[async_trait]
impl ObjectStore for FakeStore {
    async fn put_opts(&self, path: &Path, body: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.writes.fetch_add(1, SeqCst);
        self.delay().await;
        let write = self.fail(path).await?;
        if matches!(write, Write::Drop) {
            return Ok(PutResult { e_tag: None, version: None, extensions: Default::default() });
        }
        let done = self.objects.put_opts(path, body, options).await;
        self.delay().await;
        if matches!(write, Write::LoseTheAnswer) { done.and(Err(broken())) } else { done }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.others.fetch_add(1, SeqCst);
        self.delay().await;
        let found = self.objects.get_opts(path, options).await;
        self.delay().await;
        if let Ok(found) = &found {
            self.reads.fetch_add(1, SeqCst);
            self.read_bytes.fetch_add(found.range.end - found.range.start, SeqCst);
        }
        found
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.others.fetch_add(1, SeqCst);
        self.objects.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.others.fetch_add(1, SeqCst);
        // What is listed is what was there when the listing was asked for, seen late.
        let listed = self.objects.list(prefix);
        let Some(delays) = &self.delays else { return listed };
        let micros = delays.lock().unwrap().random_range(0..2000);
        futures::stream::once(async move {
            let listed: Vec<_> = listed.collect().await;
            tokio::time::sleep(Duration::from_micros(micros)).await;
            futures::stream::iter(listed)
        })
        .flatten()
        .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.writes.fetch_add(1, SeqCst);
        self.objects.copy_opts(from, to, options).await
    }
}
