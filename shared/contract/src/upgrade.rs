//! Messages of the upgrade service.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::message::{NoRefusal, Owner, Timestamp, messages};
use crate::operation::Health;
use crate::{OperationId, Service};

messages! { Owner::One(Service::Upgrade) =>
    request ListServices { "list_services", from [People], reply Vec<RunningService>, refusal NoRefusal }
    durable ApplyRelease {
        "apply_release", from [People], refusal ApplyReleaseRefused, about |it| it.folder.display().to_string()
    }
}

/// Asks which services run, with version and build, by service discovery.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListServices {}

/// A service that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunningService {
    /// How it answered.
    pub health: Health,
    /// On which host.
    pub host: String,
}

/// Replaces one service by the build in a release folder; an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApplyRelease {
    /// The folder, an absolute path on the upgrade service's host.
    pub folder: PathBuf,
    /// The same id twice is the same command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// What a release folder says of itself: `release.toml`, signed by `release.toml.minisig`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseManifest {
    /// The service it renews.
    pub service: Service,
    /// The version (semantic).
    pub version: String,
    /// The executable's file name in the folder.
    pub file: String,
    /// SHA-256 of the executable, 64 hexadecimal digits.
    pub sha256: String,
    /// When it was made.
    pub made: Timestamp,
}

/// Why a release is not applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum ApplyReleaseRefused {
    /// The folder or a file of it cannot be read, or the manifest cannot be understood.
    #[error("{0}")]
    Unreadable(String),
    /// There is no signature.
    #[error("the release is not signed: {0} is missing")]
    Unsigned(String),
    /// The signature fits no trusted key, or the manifest was altered.
    #[error("the release is not trusted: {0}")]
    Untrusted(String),
    /// The executable is not the one that was signed.
    #[error("the release was altered: {file} has SHA-256 {found}, the signed manifest says {signed}")]
    Altered {
        /// The file.
        file: String,
        /// What it hashes to.
        found: String,
        /// What was signed.
        signed: String,
    },
    /// Another upgrade is under way.
    #[error("operation {0} is under way")]
    UnderWay(OperationId),
    /// The service is not one that can be replaced this way.
    #[error("{0} cannot be replaced while it carries the upgrade out itself")]
    NotReplaceable(Service),
    /// The id was used for another command.
    #[error("operation id {0} was used for another command")]
    IdReused(OperationId),
}
