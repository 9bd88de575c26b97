//! The objects of a repository, wherever they lie.
//!
//! Promises: every call ends within a known time; a write that returned is durable; names are built in
//! one place ([`names`]). Works on anything `object_store` speaks, as long as it can create an object only
//! when it is absent.
//!
//! ```text
//!   engine -> Store { deadline } -> object_store { retries, back-off } -> folder | S3 | memory
//! ```
//!
//! A folder is written with fsync on each file and its directory before a write returns (`object_store` does
//! so when asked, and [`StoreSettings`] asks). A process killed in the middle of a write may leave a staging
//! file `…#1` beside the object; listings skip it, it is never read, and a collection removes it.
//!
//! It knows nothing of what the objects hold: see [`crate::format`].

mod capabilities;
mod create;
mod delete;
mod entries;
mod half_written;
pub mod names;
mod object_lock;
mod revive;
mod s3;
mod settings;
mod versions;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tracing::instrument;

use self::s3::S3;

pub use capabilities::Capabilities;
pub(crate) use create::Created;
pub(crate) use object_lock::Keep;
pub use object_lock::{LockMode, NotALock, ObjectLock};
pub use revive::{ReviveError, ReviveReport};
pub use settings::{S3Settings, StoreSettings, StoreSettingsError, StoreUrl};
pub(crate) use versions::Version;

/// Time for one call when a store is given without settings: long enough for a 32 MiB object on a slow line.
const DEADLINE_DEFAULT: Duration = Duration::from_secs(300);

/// A place that holds the objects of one repository. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    /// The same objects, where one request can delete many.
    bulk: Option<Arc<dyn ObjectStore>>,
    deadline: Duration,
    /// Where it is a folder.
    folder: Option<PathBuf>,
    /// Where it is on S3.
    s3: Option<Arc<S3>>,
    lock: Option<ObjectLock>,
    /// What is written is dropped.
    is_dry: bool,
}

/// One call to the store failed, after its retries.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store answered with an error, or its retries ran out.
    #[error("could not {attempt} {name} in the store")]
    Failed {
        /// What was attempted, as a verb.
        attempt: &'static str,
        /// The object or prefix concerned.
        name: String,
        /// What the store said.
        #[source]
        source: object_store::Error,
    },
    /// The object is not there.
    #[error("the store holds no object {name}")]
    NotFound {
        /// The object asked for.
        name: String,
    },
    /// No answer within the deadline of one call.
    #[error("could not {attempt} {name} in the store: no answer within {} s", deadline.as_secs_f32())]
    TimedOut {
        /// What was attempted, as a verb.
        attempt: &'static str,
        /// The object or prefix concerned.
        name: String,
        /// How long was waited.
        deadline: Duration,
    },
}

/// An object seen in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) path: Path,
    pub(crate) bytes: u64,
    /// When it was written, by the store's clock.
    pub(crate) written_unix_ms: i64,
}

impl Store {
    /// A store over any `object_store`; the repository's objects lie at its root. Used by tests and by callers
    /// who build their own client; [`StoreSettings::open`] is the usual way.
    pub fn new(objects: Arc<dyn ObjectStore>) -> Store {
        Store {
            objects,
            bulk: None,
            deadline: DEADLINE_DEFAULT,
            folder: None,
            s3: None,
            lock: None,
            is_dry: false,
        }
    }

    /// A store on S3.
    fn on_s3(s3: S3) -> Store {
        let placed = |client: &AmazonS3| Arc::new(PrefixStore::new(client.clone(), s3.prefix().clone()));
        let (objects, bulk) = (placed(s3.objects()), placed(s3.bulk()));
        Store { bulk: Some(bulk), s3: Some(Arc::new(s3)), ..Store::new(objects) }
    }

    /// The same store, in which a repository that is made locks what it keeps. One that is opened does as it was made.
    #[must_use]
    pub fn with_object_lock(mut self, lock: Option<ObjectLock>) -> Store {
        self.lock = lock;
        self
    }

    /// The same store, in which nothing is changed: what is written, locked or deleted counts as done and is not. For
    /// seeing what a change would come to; what reads its own writes back does not find them.
    #[must_use]
    pub fn changing_nothing(mut self) -> Store {
        self.is_dry = true;
        self
    }

    /// Whether what is written is dropped.
    pub(crate) fn is_dry(&self) -> bool {
        self.is_dry
    }

    /// How what is kept is locked.
    pub(crate) fn object_lock(&self) -> Option<ObjectLock> {
        self.lock
    }

    /// The time by the store's clock, as far as it is known without asking.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.s3.as_ref().map_or_else(Utc::now, |s3| s3.now())
    }

    /// The same store with another bound on the time of one call, retries included.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Store {
        self.deadline = deadline;
        self
    }

    async fn bounded<T>(
        &self,
        attempt: &'static str,
        name: &Path,
        call: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(self.deadline, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(object_store::Error::NotFound { .. })) => {
                Err(StoreError::NotFound { name: name.to_string() })
            }
            Ok(Err(source)) => Err(StoreError::Failed { attempt, name: name.to_string(), source }),
            Err(_) => Err(StoreError::TimedOut { attempt, name: name.to_string(), deadline: self.deadline }),
        }
    }

    #[instrument(name = "store get", skip_all, fields(otel.kind = "client", object = %name))]
    pub(crate) async fn get(&self, name: &Path) -> Result<Bytes, StoreError> {
        let read = || async { self.objects.get(name).await?.bytes().await };
        twice(|| self.bounded("read", name, read())).await
    }

    #[instrument(name = "store get range", level = "debug", skip_all, fields(otel.kind = "client", object = %name))]
    pub(crate) async fn get_range(
        &self,
        name: &Path,
        range: std::ops::Range<u64>,
    ) -> Result<Bytes, StoreError> {
        let read = || self.objects.get_range(name, range.clone());
        twice(|| self.bounded("read a range of", name, read())).await
    }

    #[instrument(name = "store look up", level = "debug", skip_all, fields(otel.kind = "client", object = %name))]
    pub(crate) async fn look_up(&self, name: &Path) -> Result<Listed, StoreError> {
        let meta = twice(|| self.bounded("look up", name, self.objects.head(name))).await?;
        Ok(Listed {
            path: meta.location,
            bytes: meta.size,
            written_unix_ms: meta.last_modified.timestamp_millis(),
        })
    }

    /// Writes an object, replacing one of that name: for names that nobody else can hold.
    pub(crate) async fn put(&self, name: &Path, body: Bytes) -> Result<(), StoreError> {
        self.put_with(name, body, PutOptions::default()).await
    }

    /// Writes an object that snapshots will need: locked, where the repository locks.
    pub(crate) async fn put_kept(&self, name: &Path, body: Bytes) -> Result<(), StoreError> {
        self.put_with(name, body, self.kept(PutMode::Overwrite)).await
    }

    #[instrument(name = "store put", skip_all, fields(otel.kind = "client", object = %name))]
    async fn put_with(&self, name: &Path, body: Bytes, options: PutOptions) -> Result<(), StoreError> {
        if self.is_dry {
            return Ok(());
        }
        self.bounded("write", name, self.objects.put_opts(name, PutPayload::from(body), options))
            .await
            .map(drop)
    }

    fn kept(&self, mode: PutMode) -> PutOptions {
        let mut options = PutOptions { mode, ..PutOptions::default() };
        if let Some(lock) = self.lock {
            options.extensions.insert(lock.from(self.now()));
        }
        options
    }

    /// Locks an object, or makes its lock last longer.
    #[instrument(name = "store lock", skip_all, fields(otel.kind = "client", object = %name))]
    pub(crate) async fn lock(&self, name: &Path, keep: Keep) -> Result<(), StoreError> {
        match &self.s3 {
            Some(s3) if !self.is_dry => self.bounded("lock", name, s3.lock(name, keep)).await,
            // Elsewhere nothing can be locked, as in a folder into which a bucket was copied.
            _ => Ok(()),
        }
    }

    /// Every object under `prefix`, in the store's order. The deadline bounds the wait for each page.
    #[instrument(name = "store list", skip_all, fields(otel.kind = "client", object = %prefix))]
    pub(crate) async fn list(&self, prefix: &Path) -> Result<Vec<Listed>, StoreError> {
        twice(|| self.list_once(prefix)).await
    }

    async fn list_once(&self, prefix: &Path) -> Result<Vec<Listed>, StoreError> {
        let mut found = Vec::new();
        let mut pages = self.objects.list(Some(prefix));
        while let Some(meta) = self.bounded("list", prefix, async { pages.next().await.transpose() }).await? {
            found.push(Listed {
                path: meta.location,
                bytes: meta.size,
                written_unix_ms: meta.last_modified.timestamp_millis(),
            });
        }
        Ok(found)
    }

    /// Whether the store holds anything at all.
    pub(crate) async fn is_empty(&self) -> Result<bool, StoreError> {
        let root = Path::default();
        let first = || async { self.objects.list(None).take(1).try_next().await };
        twice(|| self.bounded("list", &root, first())).await.map(|first| first.is_none())
    }
}

/// Does once more what can be done twice and failed: clients give up when a line breaks in the middle of an answer, and
/// when the answer to a deletion is lost.
async fn twice<T, F>(call: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    match call().await {
        Err(StoreError::Failed { .. }) => call().await,
        outcome => outcome,
    }
}
