//! A store that breaks, or is interrupted, at a chosen write.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicIsize;
use std::sync::atomic::Ordering::SeqCst;

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::*;

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

/// Objects in memory behind a line that breaks.
#[derive(Debug)]
pub(crate) struct Faulty {
    objects: Arc<InMemory>,
    fault: Fault,
    writes_left: AtomicIsize,
}

impl Faulty {
    /// Breaks at the write after `writes` good ones.
    pub(crate) fn after(objects: &Arc<InMemory>, writes: usize, fault: Fault) -> Faulty {
        Faulty {
            objects: Arc::clone(objects),
            fault,
            writes_left: AtomicIsize::new(writes.try_into().unwrap()),
        }
    }
}

impl Faulty {
    /// Good writes that are still to come.
    pub(crate) fn writes_left(&self) -> usize {
        self.writes_left.load(SeqCst).try_into().unwrap_or(0)
    }

    /// Whether the chosen write came.
    pub(crate) fn has_struck(&self) -> bool {
        self.writes_left.load(SeqCst) < 0
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

fn broken() -> Error {
    Error::Generic { store: "faulty", source: "the line is broken".into() }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, path: &Path, body: PutPayload, options: PutOptions) -> Result<PutResult> {
        // Below zero it stays at -1, so that an interruption happens once.
        let counts = match &self.fault {
            Fault::HangOnceIn(folder) => path.as_ref().starts_with(folder),
            _ => true,
        };
        let left = match counts {
            true => self.writes_left.fetch_update(SeqCst, SeqCst, |left| Some((left - 1).max(-1))).unwrap(),
            false => 1,
        };
        match &self.fault {
            Fault::Forget(folder) if path.as_ref().starts_with(folder) => {
                return Ok(PutResult { e_tag: None, version: None, extensions: Default::default() });
            }
            Fault::Forget(_) => {}
            Fault::Interrupt(interrupt) if left == 0 => interrupt().await,
            Fault::Interrupt(_) => {}
            _ if left > 0 => {}
            Fault::RefuseOnce | Fault::HangOnceIn(_) if left < 0 => {}
            Fault::Refuse | Fault::RefuseOnce => return Err(broken()),
            Fault::Hang | Fault::HangOnceIn(_) => futures::future::pending().await,
            Fault::LoseTheAnswer => {
                self.objects.put_opts(path, body, options).await?;
                return Err(broken());
            }
        }
        self.objects.put_opts(path, body, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.objects.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}
