//! The inside of a VM: a shell as root.

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use contract::provisioner::Script;
use contract::{VmName, VmUuid};

/// A guest to log in to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Its address.
    pub address: IpAddr,
    /// The UUID of its VM.
    pub uuid: VmUuid,
    /// Its SSH host key, where one was seen before; no other is accepted.
    pub host_key: Option<String>,
}

/// A script to run, with its environment.
#[derive(Clone, Debug)]
pub struct ScriptToRun<'a> {
    /// Its position among the VM's scripts, from 0; a script that has succeeded does not run again.
    pub at: usize,
    /// The script.
    pub script: &'a Script,
    /// Its environment variables.
    pub env: &'a std::collections::BTreeMap<String, String>,
    /// How long it may take.
    pub timeout: Duration,
}

/// Why a guest was not reached, or its script did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShellError {
    /// SSH does not answer or does not accept us: the guest may still be booting.
    #[error("{0}")]
    Unreachable(String),
    /// Another host key than before: perhaps another guest.
    #[error("the guest at {address} shows another host key than before: {seen}, not {known}")]
    HostKeyChanged {
        /// The address.
        address: IpAddr,
        /// The key it shows.
        seen: String,
        /// The key it had.
        known: String,
    },
    /// A script failed.
    #[error("script {name} ended with status {status}; `loam op show --output` shows what it wrote")]
    ScriptFailed {
        /// The script.
        name: String,
        /// Its exit status.
        status: u32,
        /// The last lines it wrote. They may hold secrets and are not part of the message.
        output: String,
    },
    /// A command of our own failed; what it wrote holds nothing of anybody's.
    #[error("{name} ended with status {status} in the guest: {output}")]
    CommandFailed {
        /// The command.
        name: String,
        /// Its exit status.
        status: u32,
        /// The last lines it wrote.
        output: String,
    },
    /// A script took too long.
    #[error("script {name} did not end within {} s; `loam op show --output` shows what it wrote", .within.as_secs())]
    ScriptTimeout {
        /// The script.
        name: String,
        /// How long it had.
        within: Duration,
        /// The last lines it wrote. They may hold secrets and are not part of the message.
        output: String,
    },
}

/// Runs scripts inside guests.
#[async_trait]
pub trait GuestShell: Send + Sync + 'static {
    /// Our public key, in one line as OpenSSH writes it.
    fn authorized_key(&self) -> &str;
    /// Logs in once and returns the guest's host key.
    async fn reach(&self, guest: &Guest) -> Result<String, ShellError>;
    /// Runs a script to its end, and returns the last lines that it wrote, at most 1000 bytes. They belong to the operation
    /// that runs it, and are written to no log: they may hold secrets.
    async fn run(&self, guest: &Guest, script: &ScriptToRun<'_>) -> Result<String, ShellError>;

    /// Gives a guest that is a copy of another one an identity of its own: machine id (its VM's UUID), random seed and
    /// host name, each only where the guest has it. Flushes its disks. Idempotent.
    async fn renew_identity(&self, guest: &Guest, name: &VmName) -> Result<(), ShellError>;

    /// Has the guest write everything that it holds in memory for its disks: after it a power cut loses none of that.
    async fn flush(&self, guest: &Guest) -> Result<(), ShellError>;
}
