//! A store whose answers take random times, so that everything interleaves.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

#[derive(Debug)]
pub(crate) struct Slow {
    objects: Arc<InMemory>,
    rng: Mutex<StdRng>,
}

impl Slow {
    pub(crate) fn new(objects: Arc<InMemory>, seed: u64) -> Slow {
        Slow { objects, rng: Mutex::new(StdRng::seed_from_u64(seed)) }
    }

    /// Mostly nothing, sometimes a while.
    async fn dawdle(&self) {
        let micros = {
            let mut rng = self.rng.lock().unwrap();
            match rng.random_range(0..20) {
                0..10 => 0,
                10..19 => rng.random_range(0..1500),
                _ => rng.random_range(0..40_000),
            }
        };
        tokio::time::sleep(Duration::from_micros(micros)).await;
    }
}

impl fmt::Display for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

#[async_trait]
impl ObjectStore for Slow {
    async fn put_opts(&self, path: &Path, body: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.dawdle().await;
        let done = self.objects.put_opts(path, body, options).await;
        self.dawdle().await;
        done
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.dawdle().await;
        let found = self.objects.get_opts(path, options).await;
        self.dawdle().await;
        found
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        // What is listed is what was there when the listing was asked for, seen late.
        let listed = self.objects.list(prefix);
        let micros = self.rng.lock().unwrap().random_range(0..2000);
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
        self.objects.copy_opts(from, to, options).await
    }
}
