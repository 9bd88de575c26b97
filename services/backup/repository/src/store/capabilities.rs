//! What a store can do, found out by trying.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::{Created, Store, StoreError, names};

/// What a store was seen to be able to do when the repository was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// An object can be created only if it is absent. Without it no backup can be sealed safely.
    pub create_if_absent: bool,
    /// What was just written is listed, with its length and the store's time.
    pub lists_what_was_written: bool,
}

impl Capabilities {
    /// Whether a repository can live there.
    pub fn suffice(&self) -> bool {
        self.create_if_absent && self.lists_what_was_written
    }
}

impl Store {
    /// Writes, lists, overwrites and removes one small object.
    pub(crate) async fn try_out(&self) -> Result<Capabilities, StoreError> {
        let name = names::entry(names::PROBE, Ulid::generate());
        let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"the second"));
        let written = self.create(&name, first.clone()).await?;
        let again = self.create(&name, second).await?;
        let found = self.get(&name).await?;
        let listed = self.list(&names::folder(names::PROBE)).await?;
        self.delete(&name).await?;
        Ok(Capabilities {
            create_if_absent: written == Created::New && again == Created::AlreadyThere && found == first,
            lists_what_was_written: listed
                .iter()
                .any(|listed| listed.path == name && listed.bytes == first.len() as u64),
        })
    }
}
