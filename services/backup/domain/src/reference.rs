//! Which backup a reference means.

use contract::backup::{Backup, RestoreBackupAsVmRefused, VerifyBackupRefused};
use contract::{BackupId, BackupRef};

/// Means the newest backup of a VM.
const LATEST: &str = "latest";
/// A refusal names no more candidates than this: more do not help to choose.
const CANDIDATES_MAX: usize = 10;

/// Why a reference does not mean one backup.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// There is no such backup.
    #[error("there is no backup {0}; `loam backup list` lists them")]
    Unknown(BackupRef),
    /// The id of more than one backup begins so.
    #[error("{given} may be any of {}", .candidates.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(", "))]
    Ambiguous {
        /// What was given.
        given: BackupRef,
        /// What it may mean, newest first.
        candidates: Vec<BackupId>,
    },
}

impl From<ReferenceError> for RestoreBackupAsVmRefused {
    fn from(error: ReferenceError) -> Self {
        match error {
            ReferenceError::Unknown(given) => RestoreBackupAsVmRefused::UnknownBackup(given),
            ReferenceError::Ambiguous { given, candidates } => {
                RestoreBackupAsVmRefused::Ambiguous { given, candidates }
            }
        }
    }
}

impl From<ReferenceError> for VerifyBackupRefused {
    fn from(error: ReferenceError) -> Self {
        match error {
            ReferenceError::Unknown(given) => VerifyBackupRefused::UnknownBackup(given),
            ReferenceError::Ambiguous { given, candidates } => {
                VerifyBackupRefused::Ambiguous { given, candidates }
            }
        }
    }
}

/// Finds the backup that a reference means among `backups`, which are sorted newest first.
///
/// # Errors
/// When none fits, or more than one begins so.
pub fn resolve<'a>(reference: &BackupRef, backups: &'a [Backup]) -> Result<&'a Backup, ReferenceError> {
    let of_vm = || backups.iter().filter(|backup| backup.vm == reference.vm);
    let unknown = || ReferenceError::Unknown(reference.clone());
    if reference.id_or_latest == LATEST {
        return of_vm().next().ok_or_else(unknown);
    }
    let fitting: Vec<&Backup> =
        of_vm().filter(|backup| backup.id.as_str().starts_with(&reference.id_or_latest)).collect();
    match fitting[..] {
        [] => Err(unknown()),
        [only] => Ok(only),
        _ => Err(ReferenceError::Ambiguous {
            given: reference.clone(),
            candidates: fitting.iter().take(CANDIDATES_MAX).map(|backup| backup.id.clone()).collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use contract::provisioner::Consistency;
    use contract::{BackupId, ByteCount, OperationId, VmName};

    use super::*;

    fn backup(vm: &str, bits: u128, seconds: i64) -> Backup {
        Backup {
            id: BackupId::from(&OperationId::from_bits(bits)),
            vm: VmName::new(vm).expect("a valid name"),
            taken: DateTime::from_timestamp(seconds, 0).expect("a valid time"),
            consistency: Consistency::Crash,
            disks: Vec::new(),
            schedule: None,
            bytes_read: ByteCount(0),
            bytes_new: ByteCount(0),
            bytes_stored: ByteCount(0),
            took_ms: 0,
        }
    }

    fn meant(text: &str, backups: &[Backup]) -> Result<BackupId, ReferenceError> {
        resolve(&text.parse().expect("a reference"), backups).map(|backup| backup.id.clone())
    }

    #[test]
    fn latest_is_the_newest_of_that_vm() {
        let all = [backup("db", 9, 30), backup("web", 2, 20), backup("web", 1, 10)];
        assert_eq!(meant("web@latest", &all), Ok(all[1].id.clone()));
        assert!(matches!(meant("mail@latest", &all), Err(ReferenceError::Unknown(_))));
    }

    #[test]
    fn an_id_or_its_unambiguous_beginning_is_enough() {
        let (one, two) = (1u128 << 120, 2u128 << 120);
        let all = [backup("web", two, 20), backup("web", one, 10)];
        let whole = format!("web@{}", all[1].id);
        assert_eq!(meant(&whole, &all), Ok(all[1].id.clone()));
        assert_eq!(meant(&whole[..7], &all), Ok(all[1].id.clone()));
        assert!(matches!(meant(&whole.replace("web", "db"), &all), Err(ReferenceError::Unknown(_))));
    }

    #[test]
    fn an_ambiguous_beginning_is_refused_with_what_it_may_mean() {
        let all = [backup("web", 2, 20), backup("web", 1, 10)];
        match meant("web@0", &all) {
            Err(ReferenceError::Ambiguous { candidates, .. }) => assert_eq!(candidates.len(), 2),
            other => panic!("{other:?}"),
        }
    }
}
