//! Health: what a service depends on, and whether each part works.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::message::{MessageOwner, NeverRefused, messages};
use crate::{Service, Timestamp};

messages! { MessageOwner::Each =>
    request CheckHealth {
        "check_health", from [People, Service(Upgrade), Service(Supervisor)], reply Health, refusal NeverRefused
    }
}

/// The part of a service's health that names its tables which are missing.
pub const MISSING_TABLES: &str = "missing_tables";
/// The part of a service's health that says whether its tables can be written.
pub const TABLE_WRITES: &str = "write_tables";

/// Asks a service for its health.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckHealth {}

/// The health of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// The service.
    pub service: Service,
    /// Its version (semantic).
    pub version: String,
    /// Which build of it: the first 16 hexadecimal digits of the SHA-256 of its executable.
    pub build: String,
    /// This run of it; a restart has another.
    pub instance: String,
    /// When it started.
    pub since: Timestamp,
    /// What it depends on, and whether each works.
    pub parts: Vec<PartHealth>,
    /// What a person should know and what is no problem, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
}

impl Health {
    /// Whether every part works.
    pub fn is_healthy(&self) -> bool {
        self.parts.iter().all(|part| part.problem.is_none())
    }
}

/// Something the service depends on, as the service sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PartHealth {
    /// Its name (`libvirt`, `store`).
    pub part: String,
    /// What is wrong with it; absent while it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}
