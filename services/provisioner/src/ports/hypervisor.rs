//! What is asked of whatever runs machines.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use contract::DiskName;

use super::machine::{Disk, Machine, VmMark};

/// What a machine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// It runs, or is on its way down.
    Running,
    /// It is off, by itself or because it crashed.
    Off,
}

/// A machine that carries our mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkedVm {
    /// Its UUID.
    pub uuid: String,
    /// What it is doing.
    pub power: Power,
    /// Its mark.
    pub mark: VmMark,
}

/// How to ask a guest to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownMode {
    /// Through its agent.
    Agent,
    /// By the power button.
    Acpi,
}

/// A disk that stands open for reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The disk.
    pub disk: DiskName,
    /// The unix socket of an NBD server.
    pub socket: PathBuf,
    /// The export's name there.
    pub export: String,
}

/// Why the hypervisor did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HypervisorError {
    /// It does not answer, or not now: asking later may help.
    #[error("{0}")]
    Unavailable(String),
    /// It knows no such machine.
    #[error("{0}")]
    Unknown(String),
    /// The guest's agent does not answer.
    #[error("{0}")]
    AgentSilent(String),
    /// It will not, however often it is asked.
    #[error("{0}")]
    Failed(String),
}

/// Runs machines.
#[async_trait]
pub trait Hypervisor: Send + Sync + 'static {
    /// `libvirt`, or `simulated` where no machine really exists.
    fn name(&self) -> &'static str;
    /// Makes ready what machines need from their host, such as a network. Calm when repeated.
    async fn prepare(&self) -> Result<(), HypervisorError>;
    /// Whether it answers.
    async fn check(&self) -> Result<(), HypervisorError>;
    /// Makes a machine known, or changes it.
    async fn define(&self, machine: &Machine) -> Result<(), HypervisorError>;
    /// Starts a machine. Calm when it runs.
    async fn start(&self, uuid: &str) -> Result<(), HypervisorError>;
    /// Asks the guest to stop and comes back at once. Calm when it is off.
    async fn request_shutdown(&self, uuid: &str, way: ShutdownMode) -> Result<(), HypervisorError>;
    /// Ends the machine without asking the guest. Calm when it is off or unknown.
    async fn destroy(&self, uuid: &str) -> Result<(), HypervisorError>;
    /// Forgets a machine that is off. Calm when it is unknown.
    async fn undefine(&self, uuid: &str) -> Result<(), HypervisorError>;
    /// What a machine is doing; nothing where it is unknown.
    async fn power(&self, uuid: &str) -> Result<Option<Power>, HypervisorError>;
    /// The address of a running machine's card, once it has one.
    async fn address(&self, uuid: &str, mac: &str) -> Result<Option<IpAddr>, HypervisorError>;
    /// Whether the guest's agent answers.
    async fn agent_answers(&self, uuid: &str) -> Result<bool, HypervisorError>;
    /// Makes the guest write out and hold back. After any error, thaw.
    async fn freeze(&self, uuid: &str) -> Result<(), HypervisorError>;
    /// Lets the guest write again. Calm when it is not frozen.
    async fn thaw(&self, uuid: &str) -> Result<(), HypervisorError>;
    /// Opens the disks of a running machine, as they are at one instant, at unix sockets in an existing folder. The
    /// hypervisor may keep old blocks there, too, that the guest overwrites meanwhile.
    async fn open_exports(
        &self,
        uuid: &str,
        disks: &[Disk],
        folder: &Path,
    ) -> Result<Vec<Export>, HypervisorError>;
    /// Closes what is open in that folder. Calm when nothing is, or the machine is gone.
    async fn close_exports(&self, uuid: &str, folder: &Path) -> Result<(), HypervisorError>;
    /// All machines that carry our mark and this realm's name.
    async fn marked(&self, realm: &str) -> Result<Vec<MarkedVm>, HypervisorError>;
}
