//! A store that counts what is read from it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::*;

#[derive(Debug)]
pub(crate) struct Counting {
    objects: Arc<InMemory>,
    reads: AtomicU64,
    read_bytes: AtomicU64,
}

impl Counting {
    pub(crate) fn new(objects: Arc<InMemory>) -> Counting {
        Counting { objects, reads: AtomicU64::new(0), read_bytes: AtomicU64::new(0) }
    }

    /// Requests that read something.
    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(SeqCst)
    }

    /// Bytes that they read.
    pub(crate) fn read_bytes(&self) -> u64 {
        self.read_bytes.load(SeqCst)
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
        let found = self.objects.get_opts(path, options).await?;
        self.reads.fetch_add(1, SeqCst);
        self.read_bytes.fetch_add(found.range.end - found.range.start, SeqCst);
        Ok(found)
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
