//! What a store can do, found out by trying.

use std::time::Duration;

use bytes::Bytes;
use object_store::PutOptions;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::s3::S3;
use super::{CreateOutcome, LockMode, LockUntil, Store, StoreError, names};

/// How long the probe object is locked.
const PROBE_LOCK: Duration = Duration::from_mins(1);

/// What a store was seen to be able to do when the repository was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// An object can be created only if it is absent. Without it no backup can be sealed safely.
    pub create_if_absent: bool,
    /// What was just written is listed, with its length and the store's time.
    pub lists_what_was_written: bool,
    /// Objects can be locked, so that they cannot be deleted for a while (S3 Object Lock).
    #[serde(default, skip_serializing_if = "is_not")]
    pub object_lock: bool,
    /// A body that arrives damaged is refused (CRC-64/NVME).
    #[serde(default, skip_serializing_if = "is_not")]
    pub checksums: bool,
    /// One request deletes many objects (S3 DeleteObjects).
    #[serde(default, skip_serializing_if = "is_not")]
    pub deletes_many: bool,
}

/// A capability that is missing is left out, as in configs from before it was probed.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_not(can: &bool) -> bool {
    !can
}

impl Capabilities {
    /// Whether a repository can be stored there.
    pub fn are_sufficient(&self) -> bool {
        self.create_if_absent && self.lists_what_was_written
    }
}

impl Store {
    /// Writes, lists, overwrites and removes small objects.
    pub(crate) async fn probe_capabilities(&self) -> Result<Capabilities, StoreError> {
        let name = names::entry(names::PROBE, Ulid::generate());
        let other = names::entry(names::PROBE, Ulid::generate());
        let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"the second"));
        let written = self.create(&name, first.clone()).await?;
        let again = self.create(&name, second).await?;
        let found = self.get(&name).await?;
        self.put(&other, Bytes::from_static(b"the third")).await?;
        let listed = self.list(&names::folder(names::PROBE)).await?;
        let deletes_many = self.try_delete_all(&[name.clone(), other.clone()]).await?;
        if !deletes_many {
            self.delete(&name).await?;
            self.delete(&other).await?;
        }
        let (object_lock, checksums) = match self.s3() {
            Some(s3) => (self.can_lock(s3).await?, self.verifies_checksums(s3).await?),
            None => (false, false),
        };
        Ok(Capabilities {
            object_lock,
            checksums,
            deletes_many,
            create_if_absent: written == CreateOutcome::New
                && again == CreateOutcome::AlreadyThere
                && found == first,
            lists_what_was_written: listed
                .iter()
                .any(|listed| listed.path == name && listed.bytes == first.len() as u64),
        })
    }

    /// Locks one small object for a short time. In a bucket with Object Lock its version stays until then.
    async fn can_lock(&self, s3: &S3) -> Result<bool, StoreError> {
        let name = names::entry(names::PROBE, Ulid::generate());
        if !self.bounded("read the lock settings for", &name, s3.has_object_lock()).await? {
            return Ok(false);
        }
        let lock_until = LockUntil { mode: LockMode::Governance, until: s3.now() + PROBE_LOCK };
        let mut options = PutOptions::default();
        options.extensions.insert(lock_until);
        self.put_with(&name, Bytes::from_static(b"locked"), options).await?;
        let lock = self.bounded("read the lock of", &name, s3.lock_of(&name)).await?;
        self.delete(&name).await?;
        Ok(lock.contains(lock_until.mode_name()))
    }

    async fn verifies_checksums(&self, s3: &S3) -> Result<bool, StoreError> {
        let name = names::entry(names::PROBE, Ulid::generate());
        let verified = self.bounded("probe checksums with", &name, s3.verifies_checksums(&name)).await?;
        if !verified {
            self.delete(&name).await?;
        }
        Ok(verified)
    }
}
