//! Following the recipes of a snapshot: every chunk that they name must exist and match.
//!
//! Snapshots of one machine share nearly all of their leaves. A leaf whose chunks are all intact is not followed again for
//! the next snapshot.

use std::collections::HashSet;

use super::{HELD, Problem, Verification, VerifyError, damage_of};
use crate::Damage;
use crate::format::recipe::{LEAVES_PER_PAGE, Piece};
use crate::format::snapshot::{DiskRecord, RecordKind, Snapshot, SnapshotId};
use crate::ids::BlobId;
use crate::restore::plan::{BlobPositions, BlobRef};
use crate::restore::{ReadError, fetch};

/// How the chunks of a snapshot are checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ChunkCheckMode {
    /// By reading them.
    Read,
    /// By looking up whether they were found bad before.
    LookUpKnownBad,
}

/// Leaves whose chunks are all intact, each with the bytes that it covers. Emptied when full.
pub(super) struct VerifiedLeaves {
    leaves: HashSet<(BlobId, u64)>,
    leaves_max: usize,
}

impl VerifiedLeaves {
    pub(super) fn new(leaves_max: usize) -> VerifiedLeaves {
        VerifiedLeaves { leaves: HashSet::new(), leaves_max }
    }

    fn extend(&mut self, leaves: Vec<(BlobId, u64)>) {
        if self.leaves.len() + leaves.len() > self.leaves_max {
            self.leaves.clear();
        }
        self.leaves.extend(leaves);
    }
}

impl Verification<'_> {
    /// Walks a snapshot.
    pub(super) async fn snapshot(
        &self,
        snapshot: &Snapshot,
        chunks: ChunkCheckMode,
    ) -> Result<(), VerifyError> {
        for record in &snapshot.contents.disks {
            match record.kind {
                RecordKind::Disk => self.disk(snapshot.id, record, chunks).await?,
                RecordKind::Stream => self.stream(snapshot.id, record, chunks).await?,
            }
            if chunks == ChunkCheckMode::Read {
                self.progress.done(record.size_bytes);
            }
        }
        self.report.lock().expect(HELD).snapshots += 1;
        Ok(())
    }

    async fn disk(
        &self,
        id: SnapshotId,
        record: &DiskRecord,
        chunks: ChunkCheckMode,
    ) -> Result<(), VerifyError> {
        let disk = match fetch::disk(self.shared, record).await {
            Ok(disk) => disk,
            Err(error) => return self.lost(id, record, 0, error),
        };
        for page in 0..disk.pages.len() as u64 {
            let first = page * LEAVES_PER_PAGE as u64;
            let mut followed = Vec::new();
            let wanted = async {
                let mut leaves = fetch::page(self.shared, &disk, page).await?;
                for (segment, leaf) in (first..).zip(&mut leaves) {
                    let range = disk.segment(segment);
                    *leaf =
                        leaf.filter(|id| self.follows((*id, range.end - range.start), chunks, &mut followed));
                }
                fetch::leaves(self.shared, &disk, first, &leaves).await
            };
            match wanted.await {
                Ok(segments) => {
                    let segments = segments.into_iter().map(|(range, pieces)| (range.start, pieces));
                    self.stretch(id, record, segments, chunks, followed).await?;
                }
                Err(error) => self.lost(id, record, disk.segment(first).start, error)?,
            }
        }
        Ok(())
    }

    async fn stream(
        &self,
        id: SnapshotId,
        record: &DiskRecord,
        chunks: ChunkCheckMode,
    ) -> Result<(), VerifyError> {
        let stream = match fetch::stream(self.shared, record).await {
            Ok(stream) => stream,
            Err(error) => return self.lost(id, record, 0, error),
        };
        let mut at = 0;
        for leaves in stream.leaves.chunks(LEAVES_PER_PAGE) {
            let start = at;
            let (mut starts, mut wanted, mut followed) = (Vec::new(), Vec::new(), Vec::new());
            for (bytes, leaf) in leaves {
                if self.follows((*leaf, *bytes), chunks, &mut followed) {
                    starts.push(at);
                    wanted.push((*bytes, *leaf));
                }
                at += bytes;
            }
            match fetch::stream_leaves(self.shared, &wanted).await {
                Ok(pieces) => {
                    self.stretch(id, record, starts.into_iter().zip(pieces), chunks, followed).await?;
                }
                Err(error) => self.lost(id, record, start, error)?,
            }
        }
        Ok(())
    }

    /// Whether a leaf is to be followed; then it is recorded. With [`ChunkCheckMode::Read`] chunks are read for each snapshot.
    fn follows(
        &self,
        leaf: (BlobId, u64),
        chunks: ChunkCheckMode,
        followed: &mut Vec<(BlobId, u64)>,
    ) -> bool {
        let is_verified = chunks == ChunkCheckMode::LookUpKnownBad
            && self.verified.lock().expect(HELD).leaves.contains(&leaf);
        if !is_verified {
            followed.push(leaf);
        }
        !is_verified
    }

    /// Checks the chunks of some leaves, each with the place where it begins.
    async fn stretch(
        &self,
        id: SnapshotId,
        record: &DiskRecord,
        leaves: impl Iterator<Item = (u64, Vec<Piece>)>,
        chunks: ChunkCheckMode,
        followed: Vec<(BlobId, u64)>,
    ) -> Result<(), VerifyError> {
        let mut places = BlobPositions::default();
        for (mut at, pieces) in leaves {
            for piece in pieces {
                if let Piece::Chunk { id, bytes } = piece {
                    places.entry(BlobRef::chunk(id, bytes)).or_default().push(at);
                }
                at += u64::from(piece.bytes());
            }
        }
        if chunks == ChunkCheckMode::Read {
            self.read_chunks(&places).await?;
        }
        match self.first_lost(&places)? {
            Some((at, damage)) => self.lost(id, record, at, damage.into()),
            None => {
                self.verified.lock().expect(HELD).extend(followed);
                Ok(())
            }
        }
    }

    /// Reports that a disk or stream cannot be read whole; an error that is not damage ends the verification.
    fn lost(
        &self,
        snapshot: SnapshotId,
        record: &DiskRecord,
        at_byte: u64,
        error: ReadError,
    ) -> Result<(), VerifyError> {
        let (disk, damage) = (record.name.clone(), damage_of(error)?);
        self.problem(Problem::Disk { snapshot, disk, at_byte, damage });
        Ok(())
    }

    /// The first place on the disk whose chunk is bad, unknown or of another length.
    fn first_lost(&self, places: &BlobPositions) -> Result<Option<(u64, Damage)>, VerifyError> {
        let bad = self.bad.lock().expect(HELD);
        let index = self.shared.index.read().expect(HELD);
        let mut first = None;
        for (asked, at) in places {
            let here = (at.iter().min().copied().unwrap_or(0), *asked);
            if first.as_ref().is_some_and(|(first, _)| *first < here) {
                continue;
            }
            match asked.find(&index) {
                Ok(_) if !bad.contains(&asked.id) => {}
                Ok(_) => first = Some((here, Damage::BlobMissing { id: asked.id })),
                Err(error) => first = Some((here, damage_of(error)?)),
            }
        }
        Ok(first.map(|((at, _), damage)| (at, damage)))
    }
}
