//! The port `Hypervisor` on QEMU, through libvirt: blocking calls on lanes of their own.
//!
//! `lane` is a thread with a connection; `spec` turns our VM and network into those of `provisioner-libvirt`, and back;
//! `power` turns its domain states into ours.

mod lane;
mod power;
mod spec;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use actix::{Addr, SyncArbiter};
use actor::ask;
use async_trait::async_trait;
use contract::message::with_causes;
use contract::{ByteCount, MacAddress, Realm, VmUuid};
use provisioner_domain::{HostCapacity, HypervisorInfo, PowerState};
use provisioner_libvirt::accelerator::{ChosenVirtType, VirtTypePreference, choose};
use provisioner_libvirt::backup::{BackupDisk, BackupSpec};
use provisioner_libvirt::lifecycle::ShutdownMode as LibvirtShutdownMode;
use provisioner_libvirt::network::NetworkSpec;
use provisioner_libvirt::{Connection, Deadlines, DiskCache, Error, Settings, Uuid, VirtType, events};
use sha2::{Digest, Sha256};

use self::lane::{LibvirtLane, Outcome, RunOnLane};
use self::power::power_of;
use self::spec::{domain_uuid, found_disk, mac_address, marked_vm, network_spec};
use crate::config::{Config, VirtTypeSetting};
use crate::ports::{
    ChangeCallback, Disk, Export, FoundDisk, GuestShutdownMethod, Hypervisor, HypervisorError,
    HypervisorErrorKind, MarkedVm, VmSpec, disk_changes,
};

/// Calls at a time. libvirtd reads five of one client at a time, and has twenty workers for all clients.
const LANES: usize = 4;
/// A call and its wait for a lane.
const CALL_MAX: Duration = Duration::from_secs(100);

/// libvirtd of this host.
pub struct LibvirtHypervisor {
    lanes: Addr<LibvirtLane>,
    settings: Settings,
    network: NetworkSpec,
    virt_type: VirtType,
    /// Why VMs run without KVM, where they do.
    emulated: Option<String>,
    cache: DiskCache,
}

impl LibvirtHypervisor {
    /// Sets lanes up; nothing is asked of libvirtd yet. May take ten seconds, to find out whether KVM works.
    ///
    /// # Errors
    /// A sentence about the settings.
    pub async fn open(config: &Config, state: &Path) -> Result<LibvirtHypervisor, String> {
        let network = network_spec(&config.network)?;
        let settings = Settings {
            uri: "qemu:///system".into(),
            socket: config.libvirt_socket.clone(),
            runtime_dir: runtime_dir(state),
            // Emulated guests on a busy host answer their agents slowly.
            deadlines: Deadlines::scaled(1.5),
        };
        let wanted = match config.virt_type {
            VirtTypeSetting::Auto => VirtTypePreference::Auto,
            VirtTypeSetting::Kvm => VirtTypePreference::Always(VirtType::Kvm),
            VirtTypeSetting::Qemu => VirtTypePreference::Always(VirtType::Qemu),
        };
        let vms = state.join("vms");
        let probed =
            tokio::task::spawn_blocking(move || (choose(wanted, None), DiskCache::possible_in(&vms)));
        let (ChosenVirtType { virt_type, reason }, cache) =
            probed.await.map_err(|error| error.to_string())?;
        tracing::info!(%virt_type, reason, "VMs run with");
        // Before the first connection: those that are older have no events.
        events::start_event_loop().map_err(|error| with_causes(&error))?;
        let lane_settings = settings.clone();
        let lanes = SyncArbiter::start(LANES, move || LibvirtLane::new(lane_settings.clone()));
        let emulated = (virt_type == VirtType::Qemu).then_some(reason);
        Ok(LibvirtHypervisor { lanes, settings, network, virt_type, emulated, cache })
    }

    /// Makes a call on a lane. `attempt` says what for, in an error.
    async fn call<T: Send + 'static>(
        &self,
        attempt: impl Into<String>,
        call: impl FnOnce(&mut Connection) -> Outcome<T> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        match ask(&self.lanes, RunOnLane(Box::new(call)), CALL_MAX).await {
            Ok(outcome) => outcome.map_err(|error| HypervisorError::new(kind_of(&error), attempt, error)),
            Err(silent) => Err(HypervisorError::new(HypervisorErrorKind::Unavailable, attempt, silent)),
        }
    }

    /// Makes a call about one domain. `verb` says what is done to the VM, in an error.
    async fn on_domain<T: Send + 'static>(
        &self,
        uuid: &VmUuid,
        verb: &str,
        call: impl FnOnce(&mut Connection, Uuid) -> Outcome<T> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        let domain = domain_uuid(uuid);
        self.call(format!("{verb} VM {uuid}"), move |line| call(line, domain)).await
    }
}

/// A short path of our own for relay sockets: `/run/loam/…`, with the state folder's digest, so that two services on
/// one host do not meet.
fn runtime_dir(state: &Path) -> PathBuf {
    let digest = hex::encode(Sha256::digest(state.as_os_str().as_encoded_bytes()));
    PathBuf::from(format!("/run/loam/libvirt-{}", &digest[..12]))
}

fn kind_of(error: &Error) -> HypervisorErrorKind {
    match error {
        Error::AgentSilent { .. } => HypervisorErrorKind::AgentSilent,
        Error::NotFound { .. } => HypervisorErrorKind::UnknownVm,
        other if other.is_transient() => HypervisorErrorKind::Unavailable,
        _ => HypervisorErrorKind::Failed,
    }
}

#[async_trait]
impl Hypervisor for LibvirtHypervisor {
    fn info(&self) -> HypervisorInfo {
        HypervisorInfo { name: "libvirt", emulation_reason: self.emulated.clone() }
    }

    async fn prepare(&self) -> Result<(), HypervisorError> {
        let network = self.network.clone();
        let attempt = format!("prepare the network {}", network.name);
        self.call(attempt, move |line| line.ensure_network(&network)).await.map(drop)
    }

    fn watch(&self, changed: ChangeCallback) -> Result<(), HypervisorError> {
        let attempt = "watch the domains";
        events::watch(self.settings.clone(), changed)
            .map_err(|error| HypervisorError::new(kind_of(&error), attempt, error))
    }

    async fn capacity(&self) -> Result<HostCapacity, HypervisorError> {
        let (cpus, kib) = self.call("get what the host has", Connection::host_capacity).await?;
        Ok(HostCapacity { cpus, memory: ByteCount(kib << 10) })
    }

    async fn check(&self) -> Result<(), HypervisorError> {
        self.call("reach libvirt", Connection::version).await.map(drop)
    }

    async fn define(&self, spec: &VmSpec) -> Result<(), HypervisorError> {
        let attempt = format!("define VM {}", spec.mark.vm);
        let (domain, wanted) = (domain_uuid(&spec.uuid), self.spec(spec)?);
        let define = move |line: &mut Connection| {
            let found = line.disks(domain)?;
            if found.is_none() {
                line.define(&wanted)?;
            }
            Ok((found, wanted))
        };
        let (found, wanted) = self.call(attempt.clone(), define).await?;
        let Some(found) = found else { return Ok(()) };
        let found: Vec<FoundDisk> = found.into_iter().map(found_disk).collect();
        if let Some(changes) = disk_changes(&spec.uuid, &spec.disks, &found) {
            return Err(HypervisorError::new(HypervisorErrorKind::DisksChanged, attempt, changes));
        }
        self.call(attempt, move |line| line.define(&wanted)).await.map(drop)
    }

    async fn start(&self, uuid: &VmUuid) -> Result<(), HypervisorError> {
        // After a restart of the host, or when the network was taken down, nobody else brings it up.
        self.prepare().await?;
        self.on_domain(uuid, "start", Connection::start).await.map(drop)
    }

    async fn resume(&self, uuid: &VmUuid) -> Result<(), HypervisorError> {
        self.on_domain(uuid, "resume", Connection::resume).await.map(drop)
    }

    async fn suspend(&self, uuid: &VmUuid) -> Result<(), HypervisorError> {
        self.on_domain(uuid, "suspend", Connection::suspend).await.map(drop)
    }

    async fn request_shutdown(
        &self,
        uuid: &VmUuid,
        mode: GuestShutdownMethod,
    ) -> Result<(), HypervisorError> {
        let domain = domain_uuid(uuid);
        let way = match mode {
            GuestShutdownMethod::Agent => LibvirtShutdownMode::Agent,
            GuestShutdownMethod::Acpi => LibvirtShutdownMode::Acpi,
        };
        let attempt = format!("ask VM {uuid} to shut down");
        self.call(attempt, move |line| line.request_shutdown(domain, way)).await.map(drop)
    }

    async fn destroy(&self, uuid: &VmUuid) -> Result<(), HypervisorError> {
        self.on_domain(uuid, "end", Connection::destroy).await.map(drop)
    }

    async fn undefine(&self, uuid: &VmUuid) -> Result<(), HypervisorError> {
        self.on_domain(uuid, "undefine", Connection::undefine).await.map(drop)
    }

    async fn definition(&self, uuid: &VmUuid) -> Result<Option<String>, HypervisorError> {
        self.on_domain(uuid, "get the definition of", Connection::definition).await
    }

    async fn restore_definition(&self, uuid: &VmUuid, definition: &str) -> Result<(), HypervisorError> {
        let definition = definition.to_owned();
        let restore = move |line: &mut Connection, domain| line.restore_definition(domain, &definition);
        self.on_domain(uuid, "define again", restore).await.map(drop)
    }

    async fn disks(&self, uuid: &VmUuid) -> Result<Vec<FoundDisk>, HypervisorError> {
        let verb = "get the disks of";
        let found = self.on_domain(uuid, verb, Connection::disks).await?;
        let unknown = || {
            HypervisorError::new(
                HypervisorErrorKind::UnknownVm,
                format!("{verb} VM {uuid}"),
                "it is not defined",
            )
        };
        Ok(found.ok_or_else(unknown)?.into_iter().map(found_disk).collect())
    }

    async fn power(&self, uuid: &VmUuid) -> Result<PowerState, HypervisorError> {
        self.on_domain(uuid, "get the power state of", Connection::power).await.map(power_of)
    }

    async fn went_off_in_order(&self, uuid: &VmUuid) -> Result<Option<bool>, HypervisorError> {
        self.on_domain(uuid, "find out how it went off:", Connection::went_off_in_order).await
    }

    async fn address(&self, uuid: &VmUuid, mac: &MacAddress) -> Result<Option<IpAddr>, HypervisorError> {
        let mac = mac_address(mac);
        self.on_domain(uuid, "get the address of", move |line, domain| line.address(domain, mac)).await
    }

    async fn agent_answers(&self, uuid: &VmUuid) -> Result<bool, HypervisorError> {
        match self.on_domain(uuid, "reach the agent of", Connection::agent_ping).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind == HypervisorErrorKind::AgentSilent => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn freeze(&self, uuid: &VmUuid) -> Result<(), HypervisorError> {
        self.on_domain(uuid, "freeze", Connection::freeze).await.map(drop)
    }

    async fn thaw(&self, uuid: &VmUuid) -> Result<(), HypervisorError> {
        self.on_domain(uuid, "thaw", Connection::thaw).await.map(drop)
    }

    async fn open_exports(
        &self,
        uuid: &VmUuid,
        disks: &[Disk],
        folder: &Path,
    ) -> Result<Vec<Export>, HypervisorError> {
        let socket = socket_in(folder);
        let backup = |disk: &Disk| BackupDisk {
            target: disk.name.to_string(),
            scratch: folder.join(format!("{}.scratch", disk.name)),
        };
        let spec = BackupSpec {
            socket: socket.clone(),
            disks: disks.iter().map(backup).collect(),
            since: None,
            checkpoint: None,
        };
        let begin = move |line: &mut Connection, domain| line.begin_backup(domain, &spec);
        self.on_domain(uuid, "export the disks of", begin).await?;
        let export = |disk: &Disk| Export {
            disk: disk.name.clone(),
            socket: socket.clone(),
            name: disk.name.to_string(),
        };
        Ok(disks.iter().map(export).collect())
    }

    async fn close_exports(&self, uuid: &VmUuid, folder: &Path) -> Result<(), HypervisorError> {
        let socket = socket_in(folder);
        let ended = self.on_domain(uuid, "close the exports of", move |line, domain| {
            // A backup that somebody else began is not ours to end.
            match line.running_backup(domain)? {
                Some(running) if running.socket == socket => line.end_backup(domain).map(drop),
                _ => Ok(()),
            }
        });
        match ended.await {
            Err(error) if error.kind == HypervisorErrorKind::UnknownVm => Ok(()),
            other => other,
        }
    }

    async fn marked(&self, realm: &Realm) -> Result<Vec<MarkedVm>, HypervisorError> {
        let found = self.call("list the marked domains", Connection::marked_domains).await?;
        Ok(found.into_iter().filter_map(|found| marked_vm(found, realm)).collect())
    }
}

fn socket_in(folder: &Path) -> PathBuf {
    folder.join("nbd.sock")
}
