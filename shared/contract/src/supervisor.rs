//! Messages of the supervisor: `loam up`, which starts and restarts the processes of one host.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::message::{MessageOwner, NeverRefused, Timestamp, messages};
use crate::{HostName, Service};

messages! { MessageOwner::One(Service::Supervisor) =>
    request ListProcesses {
        "list_processes", from [People, Service(Upgrade)], reply Vec<Process>, refusal NeverRefused
    }
    request ReplaceService {
        "replace_service", from [Service(Upgrade)], reply ReplacedService, refusal ReplaceServiceRefused
    }
    event BuildPutBack { "build_put_back", to [], about |it| it.service.name() }
}

/// Lists the supervised processes of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListProcesses {}

/// A supervised process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Process {
    /// The service that it runs.
    pub service: Service,
    /// Its process id; absent while it is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The executable it was started from.
    pub executable: PathBuf,
    /// What it ran from before an upgrade, where that can be put back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executable_before: Option<PathBuf>,
    /// When it was started or, without a `pid`, when it ended.
    pub since: Timestamp,
    /// How often it was started again after it died, since the supervisor was started.
    pub restarts: u32,
}

/// Stops a service by SIGTERM and starts it from another executable, which the supervisor remembers across its own
/// restarts. A no-op where the service runs from that executable already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplaceService {
    /// The service to replace.
    pub service: Service,
    /// The executable: an absolute path inside the supervisor's releases folder.
    pub executable: PathBuf,
}

/// Why a service is not replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum ReplaceServiceRefused {
    /// The executable is outside the releases folder, is missing, or others can write it.
    #[error("{path}: {reason}")]
    ExecutableNotUsable {
        /// The executable.
        path: String,
        /// What is wrong with the executable.
        reason: String,
    },
    /// This supervisor does not run the service.
    #[error("the supervisor of this host does not run {0}")]
    NotOnThisHost(Service),
}

/// The service was replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplacedService {
    /// The executable that the service ran from before.
    pub executable_before: PathBuf,
}

/// A build kept dying soon after an upgrade, and the supervisor put back the build before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BuildPutBack {
    /// The service.
    pub service: Service,
    /// The host.
    pub host: HostName,
    /// The build that kept dying: 16 hexadecimal digits.
    pub build: String,
    /// The build that runs now.
    pub build_now: String,
    /// How it died the last time.
    pub reason: String,
    /// When it was put back.
    pub at: Timestamp,
}
