//! The ids of small objects, without length and time.

use std::io;
use std::path::Path as Folder;

use tokio::task::spawn_blocking;
use ulid::Ulid;

use super::{Store, StoreError, names};

impl Store {
    /// The ids of all objects `folder/id`, in no particular order. In a folder of this host only the directory is read,
    /// which is many times faster than reading each object's size and time.
    pub(crate) async fn entries(&self, folder: &'static str) -> Result<Vec<Ulid>, StoreError> {
        let Some(place) = self.folder().map(|root| root.join(folder)) else {
            let listed = self.list(&names::folder(folder)).await?;
            return Ok(listed.iter().filter_map(|listed| names::entry_id(&listed.path)).collect());
        };
        let reading = spawn_blocking(move || read(&place));
        let name = names::folder(folder);
        let read = self.bounded("list", &name, async {
            let read = reading.await.expect("reading a directory does not panic");
            read.map_err(|source| object_store::Error::Generic { store: "folder", source: source.into() })
        });
        read.await
    }
}

/// A directory that does not exist yet has no entries.
fn read(place: &Folder) -> io::Result<Vec<Ulid>> {
    let entries = match std::fs::read_dir(place) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut ids = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        ids.extend(name.to_str().and_then(|name| Ulid::from_string(name).ok()));
    }
    Ok(ids)
}
