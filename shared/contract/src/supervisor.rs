//! Messages of the supervisor: `loam up`, which watches over the processes of one host.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Service;
use crate::message::{NoRefusal, Owner, Timestamp, messages};

messages! { Owner::One(Service::Supervisor) =>
    request ListProcesses {
        "list_processes", from [People, Service(Upgrade)], reply Vec<Process>, refusal NoRefusal
    }
    request ReplaceService {
        "replace_service", from [Service(Upgrade)], reply Replaced, refusal ReplaceServiceRefused
    }
}

/// Asks for the processes of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListProcesses {}

/// A process under supervision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Process {
    /// The service it runs.
    pub service: Service,
    /// Its process id; absent while it is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The executable it was started from.
    pub executable: PathBuf,
    /// Since when it runs, or is down.
    pub since: Timestamp,
    /// How often it was started again after it died.
    pub restarts: u32,
}

/// Ends a service in order and starts it from another executable. The supervisor keeps that executable across its
/// own restarts. Asking again for what runs already is a no-op.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplaceService {
    /// Which.
    pub service: Service,
    /// The executable, inside the supervisor's releases folder.
    pub executable: PathBuf,
}

/// Why a service is not replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum ReplaceServiceRefused {
    /// The executable lies elsewhere, is missing, or others can write it.
    #[error("{path}: {reason}")]
    NotUsable {
        /// The executable.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The service is not under this supervisor.
    #[error("{0} is not under supervision here")]
    NotHere(Service),
}

/// The service was replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Replaced {
    /// The executable it ran from before.
    pub before: PathBuf,
}
