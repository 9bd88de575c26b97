//! What an error of the engine means for the command: a code, a word for programs, and one sentence.
//!
//! The error and its causes are asked one after the other, the outermost first; the first that has a meaning of its own
//! decides. What nobody gave a meaning has simply failed.

use std::error::Error;
use std::io::ErrorKind;
use std::sync::Arc;

use backup_repository::anomaly::BadExpectations;
use backup_repository::restore::ImageError;
use backup_repository::retention::BadPolicy;
use backup_repository::{
    CollectError, CopyError, Damage, ForgetError, HoldError, KeyError, OpenError, PinError, ReadError,
    RestoreError, SecretError, SnapshotError, StoreError, StoreSettingsError, VerifyError, WriteOnly,
};

use crate::cli::exit::{Exit, Trouble};

/// The trouble that an error is.
pub(super) fn of(error: impl Error + 'static) -> Trouble {
    told(&error, String::new())
}

/// The same, with what was being done before it.
pub(super) fn while_doing(what: impl std::fmt::Display, error: impl Error + 'static) -> Trouble {
    told(&error, format!("{what}: "))
}

/// Arguments that make no sense together.
pub(super) fn usage(sentence: impl Into<String>) -> Trouble {
    Trouble::new(Exit::Usage, sentence).of_kind("arguments")
}

fn told(error: &(dyn Error + 'static), before: String) -> Trouble {
    let sentence = before + &sentence(error);
    let mut causes = std::iter::successors(Some(error), |&cause| cause.source());
    match causes.find_map(|cause| ASKED.iter().find_map(|ask| ask(cause))) {
        Some((exit, kind)) => Trouble::new(exit, sentence).of_kind(kind),
        None => Trouble::new(Exit::Failed, sentence),
    }
}

/// An error and its causes in one sentence. Some libraries repeat the cause in their own text, once is enough; and some
/// quote a server's answer with all its lines.
pub(super) fn sentence(error: &(dyn Error + 'static)) -> String {
    let mut sentence = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !sentence.ends_with(&said) {
            sentence = format!("{sentence}: {said}");
        }
        cause = error.source();
    }
    sentence.replace(char::is_control, " ")
}

type Meaning = (Exit, &'static str);

const ARGUMENTS: Meaning = (Exit::Usage, "arguments");
const WRITE_ONLY: Meaning = (Exit::Refused, "write_only");
const CANCELLED: Meaning = (Exit::Interrupted, "interrupted");
const NO_REPOSITORY: Meaning = (Exit::Failed, "no_repository");
const STORE: Meaning = (Exit::Unreachable, "store");

/// An error that may mean something of its own. A transparent one hides the one it shows, so it speaks for it.
trait Meant: Error + 'static {
    fn meaning(&self) -> Option<Meaning>;
}

fn ask<E: Meant>(error: &(dyn Error + 'static)) -> Option<Meaning> {
    error.downcast_ref::<E>()?.meaning()
}

const ASKED: &[fn(&(dyn Error + 'static)) -> Option<Meaning>] = &[
    ask::<OpenError>,
    ask::<WriteOnly>,
    ask::<Damage>,
    ask::<PinError>,
    ask::<KeyError>,
    ask::<SecretError>,
    ask::<StoreSettingsError>,
    ask::<StoreError>,
    ask::<SnapshotError>,
    ask::<HoldError>,
    ask::<ForgetError>,
    ask::<ReadError>,
    ask::<Arc<ReadError>>,
    ask::<CopyError>,
    ask::<RestoreError>,
    ask::<ImageError>,
    ask::<VerifyError>,
    ask::<CollectError>,
    ask::<BadPolicy>,
    ask::<BadExpectations>,
];

impl Meant for OpenError {
    fn meaning(&self) -> Option<Meaning> {
        match self {
            OpenError::NoRepository => Some(NO_REPOSITORY),
            OpenError::Foreign => Some((Exit::Failed, "foreign")),
            OpenError::AlreadyThere => Some((Exit::Failed, "already_there")),
            OpenError::Unfit => Some((Exit::Failed, "unfit_store")),
            OpenError::WrongSecret => Some((Exit::Refused, "wrong_secret")),
            OpenError::KeyRemoved => Some((Exit::Refused, "key_removed")),
            OpenError::WriteOnly(_) => Some(WRITE_ONLY),
            _ => None,
        }
    }
}

impl Meant for WriteOnly {
    fn meaning(&self) -> Option<Meaning> {
        Some(WRITE_ONLY)
    }
}

impl Meant for Damage {
    fn meaning(&self) -> Option<Meaning> {
        Some(match self {
            Damage::WriteOnly(_) => WRITE_ONLY,
            Damage::Newer { .. } => (Exit::Failed, "newer_format"),
            _ => (Exit::Failed, "damaged"),
        })
    }
}

impl Meant for PinError {
    fn meaning(&self) -> Option<Meaning> {
        match self {
            PinError::OtherAuthority { .. } | PinError::RolledBack { .. } => {
                Some((Exit::Refused, "not_believed"))
            }
            PinError::Io { .. } => None,
        }
    }
}

impl Meant for KeyError {
    fn meaning(&self) -> Option<Meaning> {
        match self {
            KeyError::WriteOnly(_) => Some(WRITE_ONLY),
            KeyError::Unknown(_) | KeyError::Ambiguous(_) | KeyError::Label => Some(ARGUMENTS),
            KeyError::Last(_) | KeyError::InUse(_) | KeyError::NoProof => Some((Exit::Refused, "key_needed")),
            KeyError::ChangedMeanwhile | KeyError::Open(_) | KeyError::Store(_) => None,
        }
    }
}

impl Meant for SecretError {
    fn meaning(&self) -> Option<Meaning> {
        Some((Exit::Usage, "secret_file"))
    }
}

impl Meant for StoreSettingsError {
    fn meaning(&self) -> Option<Meaning> {
        match self {
            StoreSettingsError::FolderMissing { source, .. } if source.kind() == ErrorKind::NotFound => {
                Some(NO_REPOSITORY)
            }
            StoreSettingsError::FolderMissing { .. } => Some(STORE),
            StoreSettingsError::FolderNotMade { .. } => None,
            StoreSettingsError::Url { .. }
            | StoreSettingsError::S3SettingsMissing
            | StoreSettingsError::Secret(_)
            | StoreSettingsError::Client(_) => Some(ARGUMENTS),
        }
    }
}

impl Meant for StoreError {
    fn meaning(&self) -> Option<Meaning> {
        match self {
            StoreError::NotFound { .. } => None,
            StoreError::Failed { .. } | StoreError::TimedOut { .. } => Some(STORE),
        }
    }
}

impl Meant for SnapshotError {
    fn meaning(&self) -> Option<Meaning> {
        match self {
            SnapshotError::Unknown { .. } => Some((Exit::Failed, "no_snapshot")),
            SnapshotError::Ambiguous { .. } => Some(ARGUMENTS),
            SnapshotError::Held { .. } => Some((Exit::Refused, "held")),
            SnapshotError::Damaged { .. } | SnapshotError::Store(_) => None,
        }
    }
}

impl Meant for HoldError {
    fn meaning(&self) -> Option<Meaning> {
        matches!(self, HoldError::Reason).then_some(ARGUMENTS)
    }
}

impl Meant for ForgetError {
    fn meaning(&self) -> Option<Meaning> {
        matches!(self, ForgetError::Clock(_)).then_some((Exit::Refused, "clock"))
    }
}

impl Meant for ReadError {
    fn meaning(&self) -> Option<Meaning> {
        matches!(self, ReadError::WriteOnly(_)).then_some(WRITE_ONLY)
    }
}

impl Meant for Arc<ReadError> {
    fn meaning(&self) -> Option<Meaning> {
        self.as_ref().meaning()
    }
}

impl Meant for CopyError {
    fn meaning(&self) -> Option<Meaning> {
        match self {
            CopyError::Cancelled => Some(CANCELLED),
            CopyError::DiskNames => Some(ARGUMENTS),
            _ => None,
        }
    }
}

impl Meant for RestoreError {
    fn meaning(&self) -> Option<Meaning> {
        match self {
            RestoreError::NoSuchDisk { .. } => Some((Exit::Failed, "no_disk")),
            RestoreError::NotADisk { .. } | RestoreError::Range { .. } => Some(ARGUMENTS),
            RestoreError::Cancelled => Some(CANCELLED),
            _ => None,
        }
    }
}

impl Meant for ImageError {
    fn meaning(&self) -> Option<Meaning> {
        match self {
            ImageError::Exists { .. } => Some((Exit::Failed, "exists")),
            ImageError::Busy { .. } | ImageError::InUse { .. } => Some((Exit::Failed, "in_use")),
            _ => None,
        }
    }
}

impl Meant for VerifyError {
    fn meaning(&self) -> Option<Meaning> {
        matches!(self, VerifyError::Cancelled).then_some(CANCELLED)
    }
}

impl Meant for CollectError {
    fn meaning(&self) -> Option<Meaning> {
        matches!(self, CollectError::Cancelled).then_some(CANCELLED)
    }
}

impl Meant for BadPolicy {
    fn meaning(&self) -> Option<Meaning> {
        Some(ARGUMENTS)
    }
}

impl Meant for BadExpectations {
    fn meaning(&self) -> Option<Meaning> {
        Some(ARGUMENTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outermost_cause_with_a_meaning_decides_and_all_are_told_once() {
        let newer = Damage::Newer { what: "config", found: 9 };
        let trouble = of(OpenError::Damaged { name: "config".into(), source: newer });
        assert_eq!((trouble.exit(), trouble.kind()), (Exit::Failed, Some("newer_format")));
        let said = "could not read config: the config has format version 9";
        assert!(trouble.sentence().starts_with(said), "{}", trouble.sentence());

        let lost = StoreError::NotFound { name: "keys".into() };
        assert_eq!(of(OpenError::Store(lost)).exit(), Exit::Failed);
        let away = StoreError::TimedOut {
            attempt: "read",
            name: "config".into(),
            deadline: std::time::Duration::from_secs(1),
        };
        let trouble = while_doing("opening", OpenError::Store(away));
        assert_eq!(trouble.exit(), Exit::Unreachable);
        assert!(trouble.sentence().starts_with("opening: could not reach"), "{}", trouble.sentence());
        assert_eq!(of(KeyError::Open(OpenError::KeyRemoved)).kind(), Some("key_removed"));
        assert_eq!(of(RestoreError::Cancelled).exit(), Exit::Interrupted);
    }
}
