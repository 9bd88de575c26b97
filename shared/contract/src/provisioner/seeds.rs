//! What machines grow from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::message::{NoRefusal, Owner, Timestamp, messages};
use crate::{ByteCount, OperationId, SeedName, Service, VmName};

messages! { Owner::One(Service::Provisioner) =>
    durable AddSeed { "add_seed", from [People], refusal AddSeedRefused, about |it| it.name.to_string() }
    request ListSeeds { "list_seeds", from [People], reply Vec<Seed>, refusal NoRefusal }
    request RemoveSeed { "remove_seed", from [People], reply Seed, refusal RemoveSeedRefused }
}

/// A cloud image that machines grow from: a read-only disk, known by its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Seed {
    /// Its name.
    pub name: SeedName,
    /// SHA-256 of the image as it was given, 64 hexadecimal digits.
    pub sha256: String,
    /// The size of the disk it holds.
    pub virtual_size: ByteCount,
    /// What it takes on the host.
    pub stored_size: ByteCount,
    /// Since when it is here.
    pub added: Timestamp,
}

/// Makes a seed of an ordinary cloud image (qcow2 or raw).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AddSeed {
    /// Its name.
    pub name: SeedName,
    /// An absolute path on the provisioner's host, or an http(s) URL.
    pub from: String,
    /// What the image must hash to, 64 hexadecimal digits.
    pub sha256: String,
    /// The same id twice is the same command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// Why a seed is not added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum AddSeedRefused {
    /// The digest is not one.
    #[error("{0:?} is not a SHA-256: it has 64 hexadecimal digits")]
    NotADigest(String),
    /// The source is neither an absolute path nor a URL.
    #[error("{0:?} is neither an absolute path nor an http(s) URL")]
    NotASource(String),
    /// Another image has the name.
    #[error("seed {name} is there already with SHA-256 {sha256}; remove it first or choose another name")]
    NameTaken {
        /// The name.
        name: SeedName,
        /// The digest of the image that has it.
        sha256: String,
    },
    /// Another operation is at work on it.
    #[error("operation {0} is at work on this seed")]
    Busy(OperationId),
    /// The id was used for another command.
    #[error("operation id {0} was used for another command")]
    IdReused(OperationId),
}

/// Asks which seeds there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListSeeds {}

/// Removes a seed that no machine grows from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RemoveSeed {
    /// Which.
    pub name: SeedName,
}

/// Why a seed is not removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum RemoveSeedRefused {
    /// No such seed.
    #[error("there is no seed {0}")]
    Unknown(SeedName),
    /// Machines have it as the base of their disks.
    #[error("seed {name} is the base of {}", .vms.iter().map(|v| v.as_str()).collect::<Vec<_>>().join(", "))]
    InUse {
        /// The seed.
        name: SeedName,
        /// The machines.
        vms: Vec<VmName>,
    },
}
