//! Verification: reading stored data again and comparing it with its ids.
//!
//! Promises: bit rot, truncation, swapped, missing and foreign packs are each found and reported; nothing is changed; one
//! damaged object does not hide the next.
//!
//! ```text
//!   everything:  each pack ─GET─> footer, directory, every blob decrypted and hashed ──> bad blobs
//!                each snapshot ──> recipe ──> every chunk known, and not bad?
//!   rolling:     as many packs as the budget allows, the longest unread first; the rest next time
//!   a snapshot:  recipe ──> its chunks by pack ──ranges──> decrypted and hashed
//! ```

mod chunks;
mod packs;
mod recipes;
mod repair;
mod report;
mod rolling;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use tracing::instrument;

use self::recipes::{ChunkCheckMode, VerifiedLeaves};
use crate::ids::{BlobId, PackId};
use crate::index;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::restore::ReadError;
use crate::shared::Shared;
use crate::snapshots::SnapshotError;
use crate::{Cancel, Damage, WriteOnly};

pub use self::repair::QuarantineReport;
pub use self::report::{Problem, VerifyError, VerifyReport, VerifyScope};

/// One running verification.
struct Verification<'a> {
    shared: &'a Arc<Shared>,
    progress: &'a Arc<Progress>,
    report: Mutex<VerifyReport>,
    /// Blobs that cannot be read where the index says they are.
    bad: Mutex<HashSet<BlobId>>,
    /// Packs that were read whole and are intact.
    good: Mutex<HashSet<PackId>>,
    verified: Mutex<VerifiedLeaves>,
}

impl Repository {
    /// Reads again what is in scope and compares it with its ids.
    ///
    /// # Errors
    /// When the store fails or it is cancelled. Damage is not an error: it is in the report.
    #[instrument(name = "repository.verify", skip_all)]
    pub async fn verify(
        &self,
        scope: VerifyScope<'_>,
        progress: &Arc<Progress>,
        cancel: &Cancel,
    ) -> Result<VerifyReport, VerifyError> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(VerifyError::Cancelled),
            report = self.verify_all(scope, progress) => report,
        }
    }

    async fn verify_all(
        &self,
        scope: VerifyScope<'_>,
        progress: &Arc<Progress>,
    ) -> Result<VerifyReport, VerifyError> {
        if !self.can_read() {
            return Err(ReadError::WriteOnly(WriteOnly).into());
        }
        self.refresh().await.map_err(ReadError::Index)?;
        let verification = Verification {
            shared: &self.shared,
            progress,
            report: Mutex::default(),
            bad: Mutex::default(),
            good: Mutex::default(),
            verified: Mutex::new(VerifiedLeaves::new(self.shared.settings.locations_cached())),
        };
        match scope {
            VerifyScope::Snapshot(snapshot) => {
                progress.expect_bytes(snapshot.contents.disks.iter().map(|disk| disk.size_bytes).sum());
                verification.snapshot(snapshot, ChunkCheckMode::Read).await?;
            }
            VerifyScope::Rolling { bytes_max, older_than } => {
                self.verify_rolling(&verification, bytes_max, older_than).await?;
            }
            VerifyScope::Everything => {
                let listed = index::list_packs(&self.shared.store).await?;
                verification.packs_recorded(listed.clone(), &listed).await?;
                for id in self.snapshot_ids().await? {
                    match self.snapshot(id).await {
                        Ok(snapshot) => {
                            verification.snapshot(&snapshot, ChunkCheckMode::LookUpKnownBad).await?
                        }
                        Err(SnapshotError::Damaged { id, source: damage }) => {
                            verification.problem(Problem::Snapshot { id, damage });
                        }
                        Err(SnapshotError::Store(error)) => return Err(error.into()),
                        // Forgotten since it was listed.
                        Err(
                            SnapshotError::Unknown { .. }
                            | SnapshotError::Ambiguous { .. }
                            | SnapshotError::Held { .. },
                        ) => {}
                    }
                }
            }
        }
        Ok(verification.report.into_inner().expect(HELD))
    }
}

const HELD: &str = "no thread panics while holding the report";

impl Verification<'_> {
    fn problem(&self, problem: Problem) {
        self.report.lock().expect(HELD).add(problem);
    }

    fn bad_blob(&self, pack: &str, id: BlobId, damage: Damage) {
        self.bad.lock().expect(HELD).insert(id);
        self.problem(Problem::Blob { pack: pack.to_owned(), id, damage });
    }
}

/// Damage is reported, any other error ends the verification.
fn damage_of(error: ReadError) -> Result<Damage, VerifyError> {
    match error {
        ReadError::Damaged(damage) | ReadError::DamagedPack { source: damage, .. } => Ok(damage),
        error => Err(error.into()),
    }
}
