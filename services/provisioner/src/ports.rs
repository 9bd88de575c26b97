//! What the provisioner asks of the world. Each port has a real adapter and, where the world can be done without, an
//! honest simulated one; one suite per port (`tests/*_suite.rs`) runs on every adapter.
//!
//! ```text
//!   Hypervisor  machines: defined, started, stopped, found again; doors to the disks of running ones
//!   Disks       files: seeds, overlays, NoCloud volumes, places for restored disks; doors to the disks of stopped ones
//!   GuestShell  the inside of a machine: SSH as root
//! ```
//!
//! Every call ends in bounded time. Whatever makes something may be asked twice.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use contract::provisioner::Script;
use contract::{ByteCount, DiskName};
use provisioner_domain::nocloud::Documents;
use serde::{Deserialize, Serialize};

/// A machine as a hypervisor is to have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The hypervisor's name for it, unique on the host.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// The address of its network card.
    pub mac: String,
    /// Virtual processors.
    pub cpu_count: u32,
    /// Memory.
    pub ram_size: ByteCount,
    /// Its disks, the one to boot from first.
    pub disks: Vec<Disk>,
    /// Its NoCloud volume.
    pub nocloud: PathBuf,
    /// The file that keeps what its serial console says.
    pub console_log: PathBuf,
    /// The ports on which its guest is going to serve; only a simulation needs to be told.
    pub served_ports: Vec<u16>,
    /// Whose it is.
    pub mark: MachineMark,
}

/// The stamp on everything we make; without it nothing of ours touches a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineMark {
    /// The realm: several may share a host.
    pub realm: String,
    /// Its name in the realm.
    pub vm: String,
    /// Which making of it this is.
    pub generation: u64,
    /// The operation that made it.
    pub operation: String,
}

/// One disk of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Its name in the machine (`vda`).
    pub name: DiskName,
    /// Its image.
    pub image: Image,
    /// What the image is an overlay of.
    pub base: Option<Image>,
}

/// A disk image in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The file.
    pub path: PathBuf,
    /// Its format.
    pub format: ImageFormat,
}

/// The formats we make and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageFormat {
    /// QEMU's own.
    Qcow2,
    /// Bytes.
    Raw,
}

impl ImageFormat {
    /// As QEMU's tools call it; also the file's extension.
    pub fn name(self) -> &'static str {
        match self {
            ImageFormat::Qcow2 => "qcow2",
            ImageFormat::Raw => "raw",
        }
    }
}

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
pub struct Marked {
    /// Its UUID.
    pub uuid: String,
    /// What it is doing.
    pub power: Power,
    /// Its mark.
    pub mark: MachineMark,
}

/// How to ask a guest to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopWay {
    /// Through its agent.
    Agent,
    /// By the power button.
    PowerButton,
}

/// A disk that stands open for reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
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
    async fn ask_to_stop(&self, uuid: &str, way: StopWay) -> Result<(), HypervisorError>;
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
    async fn open_doors(
        &self,
        uuid: &str,
        disks: &[Disk],
        folder: &Path,
    ) -> Result<Vec<Door>, HypervisorError>;
    /// Closes what is open in that folder. Calm when nothing is, or the machine is gone.
    async fn close_doors(&self, uuid: &str, folder: &Path) -> Result<(), HypervisorError>;
    /// All machines that carry our mark and this realm's name.
    async fn marked(&self, realm: &str) -> Result<Vec<Marked>, HypervisorError>;
}

/// Why something was not done to disks.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// What was given is not what was promised, or not fit to be a disk here: trying again does not help.
    #[error("{0}")]
    Unfit(String),
    /// A file or folder of ours.
    #[error("{attempting}")]
    Io {
        /// What was being attempted.
        attempting: String,
        /// What happened.
        #[source]
        source: std::io::Error,
    },
    /// A program of QEMU's did not do its work.
    #[error("{attempting}: {reason}")]
    Tool {
        /// What was being attempted.
        attempting: String,
        /// In the program's words.
        reason: String,
    },
    /// A source elsewhere did not give what it was asked for.
    #[error("fetching {url}: {reason}")]
    Fetch {
        /// The source.
        url: String,
        /// What happened.
        reason: String,
    },
}

/// Where a seed comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeedSource {
    /// A file on this host.
    File(PathBuf),
    /// An http or https URL.
    Url(String),
}

/// A seed that has been brought here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportedSeed {
    /// The size of the disk in it.
    pub virtual_size: ByteCount,
    /// What it takes on the host.
    pub stored_size: ByteCount,
}

/// Tells how many bytes of how many are done.
pub type Told<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

/// Keeps disk images.
#[async_trait]
pub trait Disks: Send + Sync + 'static {
    /// Brings an image here, checks that it hashes to `sha256` and keeps it, read-only. Calm when it is here.
    async fn import_seed(
        &self,
        source: &SeedSource,
        sha256: &str,
        told: Told<'_>,
    ) -> Result<ImportedSeed, DiskError>;
    /// The kept image of a seed.
    fn seed_image(&self, sha256: &str) -> Image;
    /// Removes a seed's image. Calm when it is gone.
    async fn remove_seed(&self, sha256: &str) -> Result<(), DiskError>;
    /// The folder in which the files of a machine lie.
    fn folder(&self, vm: &str) -> PathBuf;
    /// Makes a machine's folder. Calm when it is there.
    async fn make_folder(&self, vm: &str) -> Result<(), DiskError>;
    /// Makes an overlay of a seed. An overlay that is there already is made anew.
    async fn clone_seed(&self, sha256: &str, to: &Path, size: ByteCount) -> Result<(), DiskError>;
    /// Writes a NoCloud volume.
    async fn write_nocloud(&self, to: &Path, documents: &Documents) -> Result<(), DiskError>;
    /// Whether a file is there.
    async fn exists(&self, path: &Path) -> Result<bool, DiskError>;
    /// Removes a machine's folder with all that is in it. Calm when it is gone.
    async fn erase(&self, vm: &str) -> Result<(), DiskError>;
    /// Moves a machine's folder out of the way, to be found again by an operation's id. Calm when repeated.
    async fn set_aside(&self, vm: &str, operation: &str) -> Result<(), DiskError>;
    /// Moves a folder back that was set aside. Calm when it was not.
    async fn bring_back(&self, vm: &str, operation: &str) -> Result<(), DiskError>;
    /// The operations that have set something aside.
    async fn set_aside_by(&self) -> Result<Vec<String>, DiskError>;
    /// Removes for good what an operation set aside. Calm when it is gone.
    async fn discard(&self, operation: &str) -> Result<(), DiskError>;
    /// Makes a folder for the sockets and scratch files of a door, and tells it.
    async fn make_door_folder(&self, operation: &str) -> Result<PathBuf, DiskError>;
    /// Removes it. Calm when it is gone.
    async fn remove_door_folder(&self, operation: &str) -> Result<(), DiskError>;
    /// Serves the image of a machine that is off, read-only, at a unix socket. Calm when it is served there.
    async fn serve(&self, disk: &Disk, socket: &Path) -> Result<(), DiskError>;
    /// Ends that. Calm when nothing is served there.
    async fn stop_serving(&self, socket: &Path) -> Result<(), DiskError>;
    /// How much room there is.
    async fn free(&self) -> Result<ByteCount, DiskError>;
}

/// A guest to be entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Where it is.
    pub address: IpAddr,
    /// The UUID of its machine.
    pub uuid: String,
    /// Its host key, where it was seen before; another one is not let in.
    pub host_key: Option<String>,
}

/// A script and what it is told.
#[derive(Clone, Debug)]
pub struct ScriptRun<'a> {
    /// Which of the machine's scripts it is; a script that has run to its good end does not run again.
    pub at: usize,
    /// The script.
    pub script: &'a Script,
    /// Its variables.
    pub env: &'a std::collections::BTreeMap<String, String>,
    /// How long it may take.
    pub within: Duration,
}

/// Why the inside of a guest was not reached, or did not do its work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShellError {
    /// Nobody answers, or not to us: it may still be booting.
    #[error("{0}")]
    Unreachable(String),
    /// Somebody else answers.
    #[error("the guest at {address} shows another host key than before: {seen}, not {known}")]
    Stranger {
        /// Where.
        address: IpAddr,
        /// The key it shows.
        seen: String,
        /// The key it had.
        known: String,
    },
    /// A script ended badly.
    #[error("script {name} ended with status {status}: {tail}")]
    Script {
        /// The script.
        name: String,
        /// Its exit status.
        status: u32,
        /// The last lines it wrote.
        tail: String,
    },
    /// A script took too long.
    #[error("script {name} did not end within {} s: {tail}", .within.as_secs())]
    Slow {
        /// The script.
        name: String,
        /// How long it had.
        within: Duration,
        /// The last lines it wrote.
        tail: String,
    },
}

/// Enters guests.
#[async_trait]
pub trait GuestShell: Send + Sync + 'static {
    /// Our public key, in one line as OpenSSH writes it.
    fn authorized_key(&self) -> &str;
    /// Enters once and leaves: tells the guest's host key.
    async fn reach(&self, guest: &Guest) -> Result<String, ShellError>;
    /// Runs a script to its end; what it writes goes to the log.
    async fn run(&self, guest: &Guest, script: &ScriptRun<'_>) -> Result<(), ShellError>;
}
