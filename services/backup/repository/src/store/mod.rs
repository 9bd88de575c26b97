//! The objects of a repository, in a folder, on S3 or in memory.
//!
//! Promises: every call ends within a known time; a write that returned is durable; names are built in one place
//! ([`names`]). Works on anything `object_store` supports, as long as it can create an object only when it is absent.
//!
//! ```text
//!   engine -> Store { deadline } -> object_store { retries, back-off } -> folder | S3 | memory
//!
//!   read      get, get_range     the bytes of an object, or of a part of it
//!             head               its length and time, without its bytes
//!   list      list               all objects under a prefix, each with length and time
//!             entries            the ids in a folder and nothing else                       entries.rs
//!             versions           the ids in a folder, each with its entity tag              versions.rs
//!   write     put                replaces an object of that name
//!             create             only where none of that name exists: the commit            create.rs
//!             put_locked, create_locked    the same under Object Lock, where the repository has one
//!             lock               locks an object, or extends its lock                       object_lock.rs
//!   delete    delete, delete_all    an object that is gone counts as deleted                delete.rs
//!             remove_half_written   what killed processes left in a folder                  half_written.rs
//!             undelete           brings back what was deleted or overwritten on S3          undelete.rs
//!   probe     probe_capabilities    what the store can do, found out by trying              capabilities.rs
//! ```
//!
//! A folder is written with fsync on each file and its directory before a write returns (`object_store` does so when
//! asked, and [`StoreSettings`] asks). A process killed in the middle of a write may leave a staging file `…#1` beside
//! the object; listings skip it, it is never read, and a collection removes it.
//!
//! It knows nothing of what the objects hold: see [`crate::format`].

mod capabilities;
mod create;
mod delete;
mod entries;
mod half_written;
pub mod names;
mod object_lock;
mod s3;
mod settings;
mod undelete;
mod versions;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tracing::instrument;

use self::s3::S3;

pub use capabilities::Capabilities;
pub(crate) use create::CreateOutcome;
pub(crate) use object_lock::LockUntil;
pub use object_lock::{InvalidLockDays, LockMode, ObjectLock};
pub use settings::{S3Settings, StoreSettings, StoreSettingsError, StoreUrl};
pub use undelete::{UndeleteError, UndeleteReport};
pub(crate) use versions::Version;

/// Time for one call when a store is made without settings: enough for a 32 MiB object on a slow connection.
const DEADLINE_DEFAULT: Duration = Duration::from_secs(300);

/// Where a store keeps its objects, for what `object_store` alone cannot do.
#[derive(Clone, Debug)]
enum Backend {
    /// A folder of this host.
    Folder(PathBuf),
    /// A prefix of an S3 bucket.
    S3 {
        client: Arc<S3>,
        /// The same objects, through a client that deletes many with one request; `None` where the service cannot.
        bulk: Option<Arc<dyn ObjectStore>>,
    },
    /// Anything else, such as memory in tests.
    Other,
}

/// The objects of one repository. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    backend: Backend,
    deadline: Duration,
    lock: Option<ObjectLock>,
    /// Whether writes, locks and deletions are skipped.
    is_dry_run: bool,
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
        /// The error of the client.
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
        /// The deadline of one call, retries included.
        deadline: Duration,
    },
}

/// An object seen in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListedObject {
    pub(crate) path: Path,
    pub(crate) bytes: u64,
    /// When it was written, by the store's clock.
    pub(crate) written_unix_ms: i64,
}

impl Store {
    /// A store over any `object_store`, with the repository's objects at its root. For tests and for callers that build
    /// their own client; [`StoreSettings::open`] is the usual way.
    pub fn new(objects: Arc<dyn ObjectStore>) -> Store {
        Store { objects, backend: Backend::Other, deadline: DEADLINE_DEFAULT, lock: None, is_dry_run: false }
    }

    fn in_folder(folder: LocalFileSystem, path: PathBuf) -> Store {
        Store { backend: Backend::Folder(path), ..Store::new(Arc::new(folder)) }
    }

    fn on_s3(s3: S3) -> Store {
        let prefixed = |client: &AmazonS3| Arc::new(PrefixStore::new(client.clone(), s3.prefix().clone()));
        let (objects, bulk) = (prefixed(s3.objects()), prefixed(s3.bulk()));
        Store { backend: Backend::S3 { client: Arc::new(s3), bulk: Some(bulk) }, ..Store::new(objects) }
    }

    fn folder(&self) -> Option<&std::path::Path> {
        match &self.backend {
            Backend::Folder(path) => Some(path),
            Backend::S3 { .. } | Backend::Other => None,
        }
    }

    fn s3(&self) -> Option<&S3> {
        match &self.backend {
            Backend::S3 { client, .. } => Some(client),
            Backend::Folder(_) | Backend::Other => None,
        }
    }

    /// The same store with Object Lock for a repository that `init` makes. One that is opened uses the lock in its config.
    #[must_use]
    pub fn with_object_lock(mut self, lock: Option<ObjectLock>) -> Store {
        self.lock = lock;
        self
    }

    /// The same store for a dry run: writes, locks and deletions report success and change nothing. Code that reads its own
    /// writes does not find them.
    #[must_use]
    pub fn dry_run(mut self) -> Store {
        self.is_dry_run = true;
        self
    }

    /// Whether writes, locks and deletions are skipped.
    pub(crate) fn is_dry_run(&self) -> bool {
        self.is_dry_run
    }

    /// The Object Lock of new packs, snapshots, rosters and the config.
    pub(crate) fn object_lock(&self) -> Option<ObjectLock> {
        self.lock
    }

    /// The time by the store's clock, as its last answer said; the host's clock elsewhere than on S3.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.s3().map_or_else(Utc::now, S3::now)
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

    /// The bytes of an object.
    #[instrument(name = "store get", skip_all, fields(otel.kind = "client", object = %name))]
    pub(crate) async fn get(&self, name: &Path) -> Result<Bytes, StoreError> {
        let read = || async { self.objects.get(name).await?.bytes().await };
        retry_once(|| self.bounded("read", name, read())).await
    }

    /// A range of the bytes of an object. Where it ends behind the object, stores fail or return less: compare the length.
    #[instrument(name = "store get range", level = "debug", skip_all, fields(otel.kind = "client", object = %name))]
    pub(crate) async fn get_range(
        &self,
        name: &Path,
        range: std::ops::Range<u64>,
    ) -> Result<Bytes, StoreError> {
        let read = || self.objects.get_range(name, range.clone());
        retry_once(|| self.bounded("read a range of", name, read())).await
    }

    /// The length and time of an object, without its bytes.
    #[instrument(name = "store head", level = "debug", skip_all, fields(otel.kind = "client", object = %name))]
    pub(crate) async fn head(&self, name: &Path) -> Result<ListedObject, StoreError> {
        let meta = retry_once(|| self.bounded("read the length of", name, self.objects.head(name))).await?;
        Ok(ListedObject {
            path: meta.location,
            bytes: meta.size,
            written_unix_ms: meta.last_modified.timestamp_millis(),
        })
    }

    /// Writes an object, replacing one of that name: for names that no other process uses.
    pub(crate) async fn put(&self, name: &Path, body: Bytes) -> Result<(), StoreError> {
        self.put_with(name, body, PutOptions::default()).await
    }

    /// As [`Store::put`], for objects that snapshots need: under Object Lock, where the repository has one.
    pub(crate) async fn put_locked(&self, name: &Path, body: Bytes) -> Result<(), StoreError> {
        self.put_with(name, body, self.locked(PutMode::Overwrite)).await
    }

    #[instrument(name = "store put", skip_all, fields(otel.kind = "client", object = %name))]
    async fn put_with(&self, name: &Path, body: Bytes, options: PutOptions) -> Result<(), StoreError> {
        if self.is_dry_run {
            return Ok(());
        }
        self.bounded("write", name, self.objects.put_opts(name, PutPayload::from(body), options))
            .await
            .map(drop)
    }

    fn locked(&self, mode: PutMode) -> PutOptions {
        let mut options = PutOptions { mode, ..PutOptions::default() };
        if let Some(lock) = self.lock {
            options.extensions.insert(lock.from(self.now()));
        }
        options
    }

    /// Locks an object, or makes its lock last longer.
    #[instrument(name = "store lock", skip_all, fields(otel.kind = "client", object = %name))]
    pub(crate) async fn lock(&self, name: &Path, lock_until: LockUntil) -> Result<(), StoreError> {
        match self.s3() {
            Some(s3) if !self.is_dry_run => self.bounded("lock", name, s3.lock(name, lock_until)).await,
            // Only S3 can lock; the repository may have been copied from a bucket into a folder.
            _ => Ok(()),
        }
    }

    /// Every object under `prefix`, in the store's order. The deadline bounds the wait for each page.
    #[instrument(name = "store list", skip_all, fields(otel.kind = "client", object = %prefix))]
    pub(crate) async fn list(&self, prefix: &Path) -> Result<Vec<ListedObject>, StoreError> {
        retry_once(|| self.list_once(prefix)).await
    }

    async fn list_once(&self, prefix: &Path) -> Result<Vec<ListedObject>, StoreError> {
        let mut found = Vec::new();
        let mut pages = self.objects.list(Some(prefix));
        while let Some(meta) = self.bounded("list", prefix, async { pages.next().await.transpose() }).await? {
            found.push(ListedObject {
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
        retry_once(|| self.bounded("list", &root, first())).await.map(|first| first.is_none())
    }
}

/// Repeats once what failed and can be repeated: clients give up when a line breaks in the middle of an answer, and
/// when the answer to a deletion is lost.
async fn retry_once<T, F>(call: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    match call().await {
        Err(StoreError::Failed { .. }) => call().await,
        outcome => outcome,
    }
}
