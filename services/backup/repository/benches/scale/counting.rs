//! A store that counts what it is asked.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::*;

#[derive(Debug)]
pub(crate) struct Counting {
    objects: InMemory,
    writes: AtomicU64,
    others: AtomicU64,
}

impl Counting {
    pub(crate) fn new(objects: InMemory) -> Counting {
        Counting { objects, writes: AtomicU64::new(0), others: AtomicU64::new(0) }
    }

    pub(crate) fn reset(&self) {
        self.writes.store(0, Relaxed);
        self.others.store(0, Relaxed);
    }

    /// Writes, and everything else; a listing counts as one request, as long as it has no more than a thousand names.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.writes.load(Relaxed), self.others.load(Relaxed))
    }
}

impl fmt::Display for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

#[async_trait]
impl ObjectStore for Counting {
    async fn put_opts(&self, path: &Path, body: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.writes.fetch_add(1, Relaxed);
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
        self.others.fetch_add(1, Relaxed);
        self.objects.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.others.fetch_add(1, Relaxed);
        self.objects.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.others.fetch_add(1, Relaxed);
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.others.fetch_add(1, Relaxed);
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.writes.fetch_add(1, Relaxed);
        self.objects.copy_opts(from, to, options).await
    }
}
