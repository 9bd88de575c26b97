//! Errors of the engine as errors of the command: an exit code, a kind for programs, and one sentence.
//!
//! The error and its causes are looked up one after the other, the outermost first; the first that has a code and kind of
//! its own decides. Any other error has failed.

use std::error::Error;
use std::io::ErrorKind;
use std::sync::Arc;

use backup_export::files::FilesError;
use backup_repository::anomaly::InvalidThresholds;
use backup_repository::restore::ImageError;
use backup_repository::retention::BadPolicy;
use backup_repository::{
    CollectError, CopyDisksError, Damage, ForgetError, HoldError, KeyError, KeyPinError, OpenError,
    ReadError, RestoreError, SecretError, SnapshotError, StoreError, StoreSettingsError, VerifyError,
    WriteOnly,
};

use crate::cli::exit::{CliError, CliExitCode};

/// The command's error for an error of the engine.
pub(super) fn of(error: impl Error + 'static) -> CliError {
    convert(&error, String::new())
}

/// The same, with what was being done before it.
pub(super) fn while_doing(what: impl std::fmt::Display, error: impl Error + 'static) -> CliError {
    convert(&error, format!("{what}: "))
}

/// The end of a command whose data the reader of standard output did not take to the end; any other error is given back.
pub(super) fn or_reader_gone<E: Error + 'static>(error: E) -> Result<CliError, E> {
    let mut causes = std::iter::successors(Some(&error as &(dyn Error + 'static)), |&cause| cause.source());
    let is_closed = |cause: &(dyn Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == ErrorKind::BrokenPipe)
    };
    if causes.any(is_closed) {
        Ok(CliError::new(CliExitCode::BrokenPipe, "the reader closed standard output"))
    } else {
        Err(error)
    }
}

/// Arguments that make no sense together.
pub(super) fn usage(sentence: impl Into<String>) -> CliError {
    CliError::new(CliExitCode::Usage, sentence).with_kind("arguments")
}

fn convert(error: &(dyn Error + 'static), before: String) -> CliError {
    let message = before + &message(error);
    let mut causes = std::iter::successors(Some(error), |&cause| cause.source());
    match causes.find_map(|cause| CLASSIFIERS.iter().find_map(|classify| classify(cause))) {
        Some((exit, kind)) => CliError::new(exit, message).with_kind(kind),
        None => CliError::new(CliExitCode::Failed, message),
    }
}

/// An error and its causes in one sentence. Some libraries repeat the cause in their own text, once is enough; and some
/// quote a server's answer with all its lines.
pub(super) fn message(error: &(dyn Error + 'static)) -> String {
    let mut sentence = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !sentence.ends_with(&text) {
            sentence = format!("{sentence}: {text}");
        }
        cause = error.source();
    }
    sentence.replace(char::is_control, " ")
}

type CodeAndKind = (CliExitCode, &'static str);

const ARGUMENTS: CodeAndKind = (CliExitCode::Usage, "arguments");
const WRITE_ONLY: CodeAndKind = (CliExitCode::Refused, "write_only");
const CANCELLED: CodeAndKind = (CliExitCode::Interrupted, "interrupted");
const NO_REPOSITORY: CodeAndKind = (CliExitCode::Failed, "no_repository");
const STORE: CodeAndKind = (CliExitCode::Unreachable, "store");

/// An error that may have a code and kind of its own. A transparent error hides the one below, so it classifies it, too.
trait Classified: Error + 'static {
    fn class(&self) -> Option<CodeAndKind>;
}

fn classify<E: Classified>(error: &(dyn Error + 'static)) -> Option<CodeAndKind> {
    error.downcast_ref::<E>()?.class()
}

const CLASSIFIERS: &[fn(&(dyn Error + 'static)) -> Option<CodeAndKind>] = &[
    classify::<OpenError>,
    classify::<WriteOnly>,
    classify::<Damage>,
    classify::<KeyPinError>,
    classify::<KeyError>,
    classify::<SecretError>,
    classify::<StoreSettingsError>,
    classify::<StoreError>,
    classify::<SnapshotError>,
    classify::<HoldError>,
    classify::<ForgetError>,
    classify::<ReadError>,
    classify::<Arc<ReadError>>,
    classify::<CopyDisksError>,
    classify::<RestoreError>,
    classify::<ImageError>,
    classify::<VerifyError>,
    classify::<CollectError>,
    classify::<FilesError>,
    classify::<BadPolicy>,
    classify::<InvalidThresholds>,
];

impl Classified for OpenError {
    fn class(&self) -> Option<CodeAndKind> {
        match self {
            OpenError::NoRepository => Some(NO_REPOSITORY),
            OpenError::NotARepository => Some((CliExitCode::Failed, "foreign")),
            OpenError::RepositoryExists => Some((CliExitCode::Failed, "already_there")),
            OpenError::StoreUnsupported | OpenError::ObjectLockUnsupported => {
                Some((CliExitCode::Failed, "unfit_store"))
            }
            OpenError::WrongSecret => Some((CliExitCode::Refused, "wrong_secret")),
            OpenError::KeyRemoved => Some((CliExitCode::Refused, "key_removed")),
            OpenError::WriteOnly(_) => Some(WRITE_ONLY),
            _ => None,
        }
    }
}

impl Classified for WriteOnly {
    fn class(&self) -> Option<CodeAndKind> {
        Some(WRITE_ONLY)
    }
}

impl Classified for Damage {
    fn class(&self) -> Option<CodeAndKind> {
        Some(match self {
            Damage::WriteOnlyKey(_) => WRITE_ONLY,
            Damage::NewerFormatVersion { .. } => (CliExitCode::Failed, "newer_format"),
            _ => (CliExitCode::Failed, "damaged"),
        })
    }
}

impl Classified for KeyPinError {
    fn class(&self) -> Option<CodeAndKind> {
        match self {
            KeyPinError::OtherAuthority { .. } | KeyPinError::RolledBack { .. } => {
                Some((CliExitCode::Refused, "not_trusted"))
            }
            KeyPinError::Io { .. } => None,
        }
    }
}

impl Classified for KeyError {
    fn class(&self) -> Option<CodeAndKind> {
        match self {
            KeyError::WriteOnly(_) => Some(WRITE_ONLY),
            KeyError::Unknown(_) | KeyError::Ambiguous(_) | KeyError::Label => Some(ARGUMENTS),
            KeyError::Last(_) | KeyError::InUse(_) | KeyError::OtherKeyNotProven => {
                Some((CliExitCode::Refused, "key_needed"))
            }
            KeyError::ChangedMeanwhile | KeyError::Open(_) | KeyError::Store(_) => None,
        }
    }
}

impl Classified for SecretError {
    fn class(&self) -> Option<CodeAndKind> {
        Some((CliExitCode::Usage, "secret_file"))
    }
}

impl Classified for StoreSettingsError {
    fn class(&self) -> Option<CodeAndKind> {
        match self {
            StoreSettingsError::FolderNotFound { source, .. } if source.kind() == ErrorKind::NotFound => {
                Some(NO_REPOSITORY)
            }
            StoreSettingsError::FolderNotFound { .. } => Some(STORE),
            StoreSettingsError::FolderNotMade { .. } => None,
            StoreSettingsError::Url { .. }
            | StoreSettingsError::S3SettingsMissing
            | StoreSettingsError::Secret(_)
            | StoreSettingsError::Client(_) => Some(ARGUMENTS),
        }
    }
}

impl Classified for StoreError {
    fn class(&self) -> Option<CodeAndKind> {
        match self {
            StoreError::NotFound { .. } => None,
            StoreError::Failed { .. } | StoreError::TimedOut { .. } => Some(STORE),
        }
    }
}

impl Classified for SnapshotError {
    fn class(&self) -> Option<CodeAndKind> {
        match self {
            SnapshotError::Unknown { .. } => Some((CliExitCode::Failed, "no_snapshot")),
            SnapshotError::Ambiguous { .. } => Some(ARGUMENTS),
            SnapshotError::Held { .. } => Some((CliExitCode::Refused, "held")),
            SnapshotError::Damaged { .. } | SnapshotError::Store(_) => None,
        }
    }
}

impl Classified for HoldError {
    fn class(&self) -> Option<CodeAndKind> {
        matches!(self, HoldError::Reason).then_some(ARGUMENTS)
    }
}

impl Classified for ForgetError {
    fn class(&self) -> Option<CodeAndKind> {
        matches!(self, ForgetError::Clock(_)).then_some((CliExitCode::Refused, "clock"))
    }
}

impl Classified for ReadError {
    fn class(&self) -> Option<CodeAndKind> {
        matches!(self, ReadError::WriteOnly(_)).then_some(WRITE_ONLY)
    }
}

impl Classified for Arc<ReadError> {
    fn class(&self) -> Option<CodeAndKind> {
        self.as_ref().class()
    }
}

impl Classified for CopyDisksError {
    fn class(&self) -> Option<CodeAndKind> {
        match self {
            CopyDisksError::Cancelled => Some(CANCELLED),
            CopyDisksError::DiskNames => Some(ARGUMENTS),
            _ => None,
        }
    }
}

impl Classified for RestoreError {
    fn class(&self) -> Option<CodeAndKind> {
        match self {
            RestoreError::NoSuchDisk { .. } => Some((CliExitCode::Failed, "no_disk")),
            RestoreError::NotADisk { .. } | RestoreError::Range { .. } => Some(ARGUMENTS),
            RestoreError::Cancelled => Some(CANCELLED),
            _ => None,
        }
    }
}

impl Classified for ImageError {
    fn class(&self) -> Option<CodeAndKind> {
        match self {
            ImageError::Exists { .. } => Some((CliExitCode::Failed, "exists")),
            ImageError::RestoreRunning { .. } | ImageError::InUse { .. } => {
                Some((CliExitCode::Failed, "in_use"))
            }
            _ => None,
        }
    }
}

impl Classified for VerifyError {
    fn class(&self) -> Option<CodeAndKind> {
        matches!(self, VerifyError::Cancelled).then_some(CANCELLED)
    }
}

impl Classified for CollectError {
    fn class(&self) -> Option<CodeAndKind> {
        matches!(self, CollectError::Cancelled).then_some(CANCELLED)
    }
}

impl Classified for FilesError {
    fn class(&self) -> Option<CodeAndKind> {
        matches!(self, FilesError::Damaged { .. }).then_some((CliExitCode::Failed, "damaged_file_system"))
    }
}

impl Classified for BadPolicy {
    fn class(&self) -> Option<CodeAndKind> {
        Some(ARGUMENTS)
    }
}

impl Classified for InvalidThresholds {
    fn class(&self) -> Option<CodeAndKind> {
        Some(ARGUMENTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outermost_classified_cause_decides_and_each_cause_is_named_once() {
        let newer = Damage::NewerFormatVersion { what: "config", found: 9 };
        let error = of(OpenError::Damaged { name: "config".into(), source: newer });
        assert_eq!((error.exit(), error.kind()), (CliExitCode::Failed, "newer_format"));
        let said = "could not read config: the config has format version 9";
        assert!(error.message().starts_with(said), "{}", error.message());

        let lost = StoreError::NotFound { name: "keys".into() };
        assert_eq!(of(OpenError::Store(lost)).exit(), CliExitCode::Failed);
        let away = StoreError::TimedOut {
            attempt: "read",
            name: "config".into(),
            deadline: std::time::Duration::from_secs(1),
        };
        let error = while_doing("opening", OpenError::Store(away));
        assert_eq!(error.exit(), CliExitCode::Unreachable);
        assert!(error.message().starts_with("opening: could not reach"), "{}", error.message());
        assert_eq!(of(KeyError::Open(OpenError::KeyRemoved)).kind(), "key_removed");
        assert_eq!(of(RestoreError::Cancelled).exit(), CliExitCode::Interrupted);
    }
}
