//! Reading blobs out of packs.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use tokio::task::spawn_blocking;

use super::ReadError;
use super::plan::{self, BlobPositions, BlobRef, PackRangeRead, WantedBlob};
use crate::damage::Damage;
use crate::format::pack::decrypt_blob;
use crate::format::recipe::{self, DiskRecipe, Piece};
use crate::format::snapshot::DiskRecord;
use crate::format::stream::StreamRecipe;
use crate::ids::BlobId;
use crate::keys::Keys;
use crate::shared::Shared;
use crate::store::{StoreError, names};

/// Ranges of recipe packs read at one time; recipes are a thousandth of the data.
const RECIPE_READS_IN_FLIGHT: usize = 4;

/// Reads one planned range. A pack that is gone or too short is damage.
pub(crate) async fn range(shared: &Shared, read: &PackRangeRead) -> Result<Bytes, ReadError> {
    let name = names::pack(read.pack.kind, read.pack.id);
    let damaged = |source| ReadError::DamagedPack { pack: name.to_string(), source };
    let short = Damage::Malformed { what: "pack", why: "it is shorter than the index says" };
    match shared.store.get_range(&name, read.range.clone()).await {
        Ok(object) if object.len() as u64 == read.range.end - read.range.start => Ok(object),
        Ok(_) => Err(damaged(short)),
        Err(StoreError::NotFound { .. }) => Err(damaged(Damage::Missing { what: "pack" })),
        // Stores report a range beyond the end in various ways.
        Err(error @ StoreError::Failed { .. }) => match shared.store.head(&name).await {
            Ok(found) if found.bytes < read.range.end => Err(damaged(short)),
            _ => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}

/// Decrypts and checks every blob of a range and passes it to `each`. CPU work: not for an async thread.
pub(crate) fn open_all<E: From<ReadError>>(
    keys: &Keys,
    read: &PackRangeRead,
    object: &[u8],
    mut each: impl FnMut(&WantedBlob, Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let damaged = |source| ReadError::of(source, || names::pack(read.pack.kind, read.pack.id).to_string());
    let key = read.pack.key(keys).map_err(damaged)?;
    for blob in &read.blobs {
        let at = (u64::from(blob.location.offset) - read.range.start) as usize;
        let entry = &blob.location.entry;
        let mut encrypted = object[at..at + entry.encrypted_bytes as usize].to_vec();
        let content = decrypt_blob(keys, &key, read.pack.id, blob.location.slot, entry, &mut encrypted)
            .map_err(damaged)?;
        each(blob, content)?;
    }
    Ok(())
}

/// Reads many blobs, in no particular order, each with the positions that want it.
pub(crate) async fn many(
    shared: &Arc<Shared>,
    places: BlobPositions,
) -> Result<Vec<(Vec<u64>, Vec<u8>)>, ReadError> {
    let reads = plan::planned(shared, places).await?;
    let found: Vec<Vec<_>> = futures::stream::iter(reads.into_iter().map(|read| async move {
        let object = range(shared, &read).await?;
        let shared = Arc::clone(shared);
        spawn_blocking(move || {
            let mut found = Vec::with_capacity(read.blobs.len());
            open_all(&shared.keys(), &read, &object, |blob, content| {
                found.push((blob.positions.clone(), content));
                Ok::<_, ReadError>(())
            })?;
            Ok::<_, ReadError>(found)
        })
        .await
        .expect("decrypting blobs does not panic")
    }))
    .buffer_unordered(RECIPE_READS_IN_FLIGHT)
    .try_collect()
    .await?;
    Ok(found.into_iter().flatten().collect())
}

async fn one(shared: &Arc<Shared>, id: BlobId) -> Result<Vec<u8>, ReadError> {
    let found = many(shared, BlobPositions::from([(BlobRef::recipe(id), Vec::new())])).await?;
    let (_, content) = found.into_iter().next().expect("one blob was asked for and none is missing");
    Ok(content)
}

/// The root of a disk's recipe.
pub(crate) async fn disk(shared: &Arc<Shared>, record: &DiskRecord) -> Result<DiskRecipe, ReadError> {
    let disk = DiskRecipe::decode(&one(shared, record.root).await?)?;
    if disk.size_bytes != record.size_bytes {
        let why = "its size is not the one in the snapshot";
        return Err(Damage::Malformed { what: "disk", why }.into());
    }
    Ok(disk)
}

/// The root of a stream's recipe.
pub(crate) async fn stream(shared: &Arc<Shared>, record: &DiskRecord) -> Result<StreamRecipe, ReadError> {
    let stream = StreamRecipe::decode(&one(shared, record.root).await?)?;
    if stream.size_bytes != record.size_bytes {
        let why = "its size is not the one in the snapshot";
        return Err(Damage::Malformed { what: "stream", why }.into());
    }
    Ok(stream)
}

/// The pieces of some leaves of a stream, in their order.
pub(crate) async fn stream_leaves(
    shared: &Arc<Shared>,
    leaves: &[(u64, BlobId)],
) -> Result<Vec<Vec<Piece>>, ReadError> {
    let mut places = BlobPositions::default();
    for (index, (_, id)) in leaves.iter().enumerate() {
        places.entry(BlobRef::recipe(*id)).or_default().push(index as u64);
    }
    let mut found = vec![Vec::new(); leaves.len()];
    for (indices, text) in many(shared, places).await? {
        for index in indices {
            found[index as usize] = recipe::decode_stream_leaf(&text, leaves[index as usize].0)?;
        }
    }
    Ok(found)
}

/// The leaves of one page of a disk; a page that is a hole has only holes.
pub(crate) async fn page(
    shared: &Arc<Shared>,
    disk: &DiskRecipe,
    page: u64,
) -> Result<Vec<Option<BlobId>>, ReadError> {
    let leaves = disk.leaves(page);
    match disk.pages[page as usize] {
        None => Ok(vec![None; leaves as usize]),
        Some(id) => Ok(recipe::decode_page(&one(shared, id).await?, leaves)?),
    }
}

/// The pieces of the segments that have a leaf; `first` is the number of the first segment.
pub(crate) async fn leaves(
    shared: &Arc<Shared>,
    disk: &DiskRecipe,
    first: u64,
    leaves: &[Option<BlobId>],
) -> Result<Vec<(Range<u64>, Vec<Piece>)>, ReadError> {
    let mut places = BlobPositions::default();
    for (index, leaf) in leaves.iter().enumerate() {
        if let Some(id) = leaf {
            places.entry(BlobRef::recipe(*id)).or_default().push(first + index as u64);
        }
    }
    let mut segments = Vec::new();
    for (indices, text) in many(shared, places).await? {
        for index in indices {
            let range = disk.segment(index);
            let pieces = recipe::decode_leaf(&text, range.end - range.start)?;
            segments.push((range, pieces));
        }
    }
    Ok(segments)
}
