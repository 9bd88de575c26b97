//! The definition of a VM, and what of it may be secret.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ByteCount, DomainName, SeedName, VmName};

/// A VM as a person defines it: the TOML file, checked, with the texts of its scripts. Fields that may hold secrets are
/// marked `x-secret` in the schema, and `Debug` prints their names only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmDefinition {
    /// The VM's name, unique over all hosts.
    pub name: VmName,
    /// The base image that it is created from.
    pub seed: SeedName,
    /// Virtual processors, from 1 to 64.
    pub cpu_count: u32,
    /// Memory in bytes: whole mebibytes, from 64 MiB to 1 TiB.
    pub ram_size: ByteCount,
    /// The size of its disk in bytes: a multiple of 64 KiB, from 16 MiB to 64 TiB, not smaller than the seed's.
    pub disk_size: ByteCount,
    /// The domains that the proxy routes to it; at most 100.
    #[serde(default)]
    pub domains: Vec<DomainRoute>,
    /// Environment variables of its scripts; at most 200.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    pub env: BTreeMap<String, String>,
    /// Scripts that run over SSH after the first boot, in this order; at most 50.
    #[serde(default)]
    pub install: Vec<Script>,
}

/// A domain and the port of the VM that it is routed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DomainRoute {
    /// The DNS name.
    pub domain: DomainName,
    /// The TCP port on the VM's address, from 1 to 65535.
    pub port: u16,
}

impl fmt::Debug for VmDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let VmDefinition { name, seed, cpu_count, ram_size, disk_size, domains, env, install } = self;
        f.debug_struct("VmDefinition")
            .field("name", name)
            .field("seed", seed)
            .field("cpu_count", cpu_count)
            .field("ram_size", ram_size)
            .field("disk_size", disk_size)
            .field("domains", domains)
            .field("env", &env.keys())
            .field("install", install)
            .finish()
    }
}

/// What of a VM's definition may be secret. Rows hold it encrypted.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmSecrets {
    /// The environment variables of its scripts.
    #[schemars(extend("x-secret" = true))]
    pub env: BTreeMap<String, String>,
    /// Its scripts.
    pub install: Vec<Script>,
}

impl fmt::Debug for VmSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VmSecrets").field("env", &self.env.keys()).field("install", &self.install).finish()
    }
}

/// A script that runs inside a VM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Script {
    /// Its file name, for people (`install.sh`).
    pub name: String,
    /// Its text; its first line names the interpreter (`#!/bin/sh`).
    #[schemars(extend("x-secret" = true))]
    pub text: String,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Script({:?}, {} bytes)", self.name, self.text.len())
    }
}
