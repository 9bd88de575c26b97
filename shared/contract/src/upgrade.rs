//! Messages of the upgrade service.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::health::Health;
use crate::message::{MessageOwner, NeverRefused, Timestamp, messages};
use crate::{OperationId, Service};

messages! { MessageOwner::One(Service::Upgrade) =>
    request ListServices { "list_services", from [People], reply Vec<RunningService>, refusal NeverRefused }
    durable ApplyRelease {
        "apply_release", from [People], refusal ApplyReleaseRefused, about |it| it.folder.display().to_string()
    }
    durable RollBackService {
        "roll_back_service", from [People], refusal RollBackServiceRefused, about |it| it.service.to_string()
    }
}

/// Lists the services that answer to service discovery, with version, build and health.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListServices {}

/// A service that answers to discovery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunningService {
    /// Its health; one that does not answer in time has a part `answer` with that problem.
    pub health: Health,
    /// The host it runs on; empty where it announced none.
    pub host: String,
}

/// Replaces one service on the upgrade service's host by the build in a release folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApplyRelease {
    /// The folder with `release.toml`, its signature and the executable: an absolute path on the upgrade service's host.
    pub folder: PathBuf,
    /// Why a version below the highest that was committed here may be applied; without a reason it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_downgrade: Option<String>,
    /// The id of the operation, where the sender chooses it: the same id twice is the same command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// The manifest of a release folder: `release.toml`, signed by `release.toml.minisig`. Keys that a reader does not know
/// are ignored, unless `critical` lists them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReleaseManifest {
    /// The format of the manifest; it rises when an older reader must not read it.
    #[serde(default = "ReleaseManifest::first_format")]
    pub format: u32,
    /// Keys that a reader has to know; one that does not know all of them refuses the release.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub critical: Vec<String>,
    /// The service that is replaced.
    pub service: Service,
    /// The version of the new build (semantic).
    pub version: String,
    /// The executable's file name in the folder: letters, digits, `-`, `_`, `.` and `+`, at most 100.
    pub file: String,
    /// SHA-256 of the executable, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// When the release was made.
    pub made: Timestamp,
}

impl ReleaseManifest {
    /// The format that this version writes, and the highest that it reads.
    pub const FORMAT: u32 = 1;

    /// Manifests of the first format may leave the number out.
    fn first_format() -> u32 {
        1
    }
}

/// Why a release is not applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum ApplyReleaseRefused {
    /// The folder or a file of it cannot be read, or the manifest cannot be understood.
    #[error("{0}")]
    UnreadableRelease(String),
    /// There is no signature at this path.
    #[error("the release is not signed: {0} is missing; sign release.toml with minisign")]
    Unsigned(String),
    /// No trusted key made the signature, or the manifest was altered.
    #[error("the release is not trusted: {0}")]
    Untrusted(String),
    /// The executable is not the one that was signed.
    #[error("the release was altered: {file} has SHA-256 {found}, the signed manifest says {signed}")]
    ExecutableAltered {
        /// The executable's file name.
        file: String,
        /// Its SHA-256.
        found: String,
        /// The SHA-256 in the signed manifest.
        signed: String,
    },
    /// The version is below the highest that was ever committed on this host.
    #[error(
        "{service} {version} is older than {highest}, which was committed here; to go back, give a reason (--allow-downgrade REASON)"
    )]
    Downgrade {
        /// The service.
        service: Service,
        /// The version of the release.
        version: String,
        /// The highest version that was committed.
        highest: String,
    },
    /// Another upgrade has not ended.
    #[error("operation {0} applies a release already; wait for it or cancel it")]
    UnderWay(OperationId),
    /// The service is not one that can be replaced this way.
    #[error("{0} cannot be replaced by an upgrade; install its new executable and restart it")]
    NotReplaceable(Service),
    /// The id was used for another command.
    #[error("operation id {0} was used for another command")]
    IdReused(OperationId),
}

/// Replaces one service on the upgrade service's host by the build that it ran before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RollBackService {
    /// The service.
    pub service: Service,
    /// The id of the operation, where the sender chooses it: the same id twice is the same command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// Why a service is not rolled back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum RollBackServiceRefused {
    /// No build is kept that it ran before the present one.
    #[error("there is no build of {0} before the one that runs; apply a release")]
    NothingBefore(Service),
    /// The supervisor of the host does not run the service.
    #[error("the supervisor of this host does not run {0}")]
    NotOnThisHost(Service),
    /// An operation of the upgrade service has not ended.
    #[error("operation {0} replaces a service already; wait for it or cancel it")]
    UnderWay(OperationId),
    /// The id was used for another command.
    #[error("operation id {0} was used for another command")]
    IdReused(OperationId),
}
