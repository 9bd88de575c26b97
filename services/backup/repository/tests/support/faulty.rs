//! A store that breaks at a chosen write.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::*;

/// What happens at the chosen write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It and all later ones fail, as if the store had gone.
    Refuse,
    /// It and all later ones never end.
    Hang,
    /// It is done, but the answer is an error.
    LoseTheAnswer,
}

/// Objects in memory behind a line that breaks.
#[derive(Debug)]
pub struct Faulty {
    objects: Arc<InMemory>,
    fault: Fault,
    writes_left: AtomicUsize,
}

impl Faulty {
    /// Breaks at the write after `writes` good ones.
    pub fn after(objects: &Arc<InMemory>, writes: usize, fault: Fault) -> Faulty {
        Faulty {
            objects: Arc::clone(objects),
            fault,
            writes_left: AtomicUsize::new(writes),
        }
    }
}

impl Faulty {
    /// Good writes that are still to come.
    pub fn writes_left(&self) -> usize {
        self.writes_left.load(Ordering::SeqCst)
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

fn broken() -> Error {
    Error::Generic {
        store: "faulty",
        source: "the line is broken".into(),
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, path: &Path, body: PutPayload, options: PutOptions) -> Result<PutResult> {
        let left = self
            .writes_left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        match (left, self.fault) {
            (Ok(_), _) => self.objects.put_opts(path, body, options).await,
            (Err(_), Fault::Refuse) => Err(broken()),
            (Err(_), Fault::Hang) => futures::future::pending().await,
            (Err(_), Fault::LoseTheAnswer) => {
                self.objects.put_opts(path, body, options).await?;
                Err(broken())
            }
        }
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
