//! Seeds: the base images that VMs are created from. (cloud-init calls another thing a seed: its NoCloud volume.)

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::HostRefused;
use crate::message::{MessageOwner, NeverRefused, Timestamp, messages};
use crate::{ByteCount, HostName, OperationId, SeedName, Service, VmName};

messages! { MessageOwner::One(Service::Provisioner) =>
    durable AddSeed { "add_seed", from [People], refusal AddSeedRefused, about |it| it.name.to_string() }
    request ListSeeds { "list_seeds", from [People], reply Vec<Seed>, refusal NeverRefused }
    request RemoveSeed { "remove_seed", from [People], reply Seed, refusal RemoveSeedRefused }
}

/// A cloud image that VMs are created from: a read-only disk, identified by its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Seed {
    /// Its name, unique on its host.
    pub name: SeedName,
    /// The host that has its file.
    pub host: HostName,
    /// SHA-256 of the image as it was given, 64 hexadecimal digits.
    pub sha256: String,
    /// The size of the disk in it, in bytes: the least `disk_size` of a VM.
    pub virtual_size: ByteCount,
    /// The bytes that its file takes on the host.
    pub stored_size: ByteCount,
    /// When its import ended.
    pub added: Timestamp,
}

/// Imports a cloud image as a seed: qcow2 or raw, whole in one file, with a disk of 1 MiB to 64 TiB that begins with a boot
/// sector. Its output is the `Seed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AddSeed {
    /// The seed's name.
    pub name: SeedName,
    /// An absolute path on that host, or an http(s) URL.
    pub from: String,
    /// The SHA-256 that the image must have, 64 hexadecimal digits.
    pub sha256: String,
    /// The host that imports it; may be left out where there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostName>,
    /// The id of the operation; the same id twice is the same command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// Why a seed is not added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum AddSeedRefused {
    /// The digest is not a SHA-256.
    #[error("{0:?} is not a SHA-256: it has 64 hexadecimal digits")]
    NotADigest(String),
    /// The source is neither an absolute path nor a URL.
    #[error("{0:?} is neither an absolute path nor an http(s) URL")]
    NotASource(String),
    /// Another image has the name.
    #[error("there is a seed {name} with SHA-256 {sha256}; remove it first or choose another name")]
    NameTaken {
        /// The seed's name.
        name: SeedName,
        /// The digest of the image that has the name.
        sha256: String,
    },
    /// No host, or a wrong one, was named.
    #[error(transparent)]
    Host(HostRefused),
    /// Another operation imports it.
    #[error("operation {0} is at work on this seed")]
    Busy(OperationId),
    /// The id was used for another command.
    #[error("operation id {0} was used for another command")]
    IdReused(OperationId),
}

/// Lists the seeds of all hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListSeeds {}

/// Removes a seed that no VM is based on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RemoveSeed {
    /// The seed's name.
    pub name: SeedName,
    /// The host that has it; may be left out where only one has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostName>,
}

/// Why a seed is not removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum RemoveSeedRefused {
    /// No such seed.
    #[error("there is no seed {0}")]
    UnknownSeed(SeedName),
    /// No host, or a wrong one, was named.
    #[error(transparent)]
    Host(HostRefused),
    /// Disks of VMs are based on it.
    #[error("seed {name} is the base of {}", .vms.iter().map(|v| v.as_str()).collect::<Vec<_>>().join(", "))]
    InUse {
        /// The seed's name.
        name: SeedName,
        /// The VMs.
        vms: Vec<VmName>,
    },
}
