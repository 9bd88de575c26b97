//! Messages of the supervisor: `loam up`, which starts and restarts the processes of one host.

use std::collections::BTreeMap;
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
    request JoinHost { "join_host", from [JoiningHost], reply JoinedHost, refusal JoinHostRefused }
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

/// Admits a host to the bus by its join token, with the keys that it made for its services. The same keys again are
/// answered as the first time, as long as the token is valid; answered by the supervisor of the host that the token names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JoinHost {
    /// The name of the host.
    pub host: HostName,
    /// A key for each service, the supervisor included.
    pub keys: Vec<OfferedKey>,
}

/// A public key, with the proof that its sender holds the private half.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OfferedKey {
    /// The service.
    pub service: Service,
    /// The public nkey of a user: `U` and 55 more characters.
    pub public_key: String,
    /// Its signature, in hexadecimal digits, of [`JoinHost::signed_text`].
    pub signature: String,
}

impl JoinHost {
    /// What the key of a service signs: it is of use to no other token, host or service.
    pub fn signed_text(token: &str, host: &HostName, service: Service) -> String {
        format!("loam join {token} {host} {service}")
    }
}

/// The host was admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JoinedHost {
    /// The URLs of the bus, separated by commas.
    pub url: String,
    /// The certificate of the authority of its servers, in PEM; absent where they have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// The names of people, each with its public nkey.
    pub people: BTreeMap<String, String>,
    /// Whether every server has read its settings: until then the keys do not let the host in.
    pub in_effect: bool,
}

/// Why a host is not admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum JoinHostRefused {
    /// The token is not known, or not any more.
    #[error("the token is not valid any more; make a new one with `loam host add {0}`")]
    TokenNotValid(HostName),
    /// The token is older than an hour.
    #[error("the token is older than an hour; make a new one with `loam host add {0}`")]
    TokenExpired(HostName),
    /// The token was used with other keys.
    #[error(
        "the token was used already, with other keys; if that was not you, remove the host with `loam host remove {0}`"
    )]
    TokenUsed(HostName),
    /// The token is for another host.
    #[error("the token is for the host {0}")]
    OtherHost(HostName),
    /// A key is missing, is no public nkey, or its signature is wrong.
    #[error("the key for {service} cannot be used: {reason}")]
    KeyNotUsable {
        /// The service.
        service: Service,
        /// What is wrong with it.
        reason: String,
    },
}
