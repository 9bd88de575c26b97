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
mod entries;
mod half_written;
pub mod names;
mod settings;
mod versions;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tracing::instrument;

pub use capabilities::Capabilities;
pub use settings::{S3Settings, StoreSettings, StoreSettingsError, StoreUrl};
pub(crate) use versions::Version;

/// Time for one call when a store is given without settings: long enough for a 32 MiB object on a slow line.
const DEADLINE_DEFAULT: Duration = Duration::from_secs(300);

/// A place that holds the objects of one repository. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    deadline: Duration,
    /// Where it is a folder.
    folder: Option<PathBuf>,
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

/// What a create-if-absent found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Created {
    /// The object is ours.
    New,
    /// Somebody else has written another one before.
    AlreadyThere,
}

impl Store {
    /// A store over any `object_store`; the repository's objects lie at its root. Used by tests and by callers
    /// who build their own client; [`StoreSettings::open`] is the usual way.
    pub fn new(objects: Arc<dyn ObjectStore>) -> Store {
        Store { objects, deadline: DEADLINE_DEFAULT, folder: None }
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
    #[instrument(name = "store put", skip_all, fields(otel.kind = "client", object = %name))]
    pub(crate) async fn put(&self, name: &Path, body: Bytes) -> Result<(), StoreError> {
        self.bounded("write", name, self.objects.put(name, PutPayload::from(body))).await.map(drop)
    }

    /// Writes an object only when none of that name exists: the commit primitive. An attempt that was carried out and
    /// whose answer was lost counts as what it is: `body` must be such that nobody else can have written it.
    #[instrument(name = "store create", skip_all, fields(otel.kind = "client", object = %name))]
    pub(crate) async fn create(&self, name: &Path, body: Bytes) -> Result<Created, StoreError> {
        let outcome = self.create_once(name, body.clone()).await;
        if !matches!(outcome, Ok(Created::AlreadyThere) | Err(StoreError::Failed { .. })) {
            return outcome;
        }
        match self.get(name).await {
            Ok(found) if found == body => Ok(Created::New),
            Ok(_) => Ok(Created::AlreadyThere),
            // It did not arrive. Clients do not send such a request again by themselves.
            Err(StoreError::NotFound { .. }) => self.create_once(name, body).await,
            Err(_) => outcome,
        }
    }

    async fn create_once(&self, name: &Path, body: Bytes) -> Result<Created, StoreError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = self.objects.put_opts(name, PutPayload::from(body), options);
        match self.bounded("create", name, put).await {
            Ok(_) => Ok(Created::New),
            Err(StoreError::Failed {
                source: object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. },
                ..
            }) => Ok(Created::AlreadyThere),
            Err(error) => Err(error),
        }
    }

    /// Removes an object; one that is gone already counts as removed.
    #[instrument(name = "store delete", skip_all, fields(otel.kind = "client", object = %name))]
    pub(crate) async fn delete(&self, name: &Path) -> Result<(), StoreError> {
        match twice(|| self.bounded("delete", name, self.objects.delete(name))).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
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
