//! Machines on QEMU, through libvirt: the port `Hypervisor`, carried out on lanes of blocking calls.

mod described;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use actix::{Addr, SyncArbiter};
use actor::ask;
use async_trait::async_trait;
use provisioner_libvirt::accelerator::{Chosen, Wanted, choose};
use provisioner_libvirt::backup::{BackupDisk, BackupSpec};
use provisioner_libvirt::lifecycle::{Power as Doing, ShutdownWay};
use provisioner_libvirt::network::NetworkSpec;
use provisioner_libvirt::{Connection, Deadlines, Error, HostCache, MacAddress, Settings, VirtType};
use sha2::{Digest, Sha256};

use self::described::{network_spec, uuid_of};
use crate::actors::{LibvirtLane, OnLane, Outcome};
use crate::config::{Config, VirtTypeWanted};
use crate::ports::{Disk, Export, Hypervisor, HypervisorError, Machine, VmMark, MarkedVm, Power, ShutdownMode};
use crate::sagas::chain;

/// Calls at a time. libvirtd reads five of one client at a time, and has twenty workers for everybody.
const LANES: usize = 4;
/// Calls that wait for a lane.
const MAILBOX_DEADLINE: Duration = Duration::from_secs(100);

/// libvirtd of this host.
pub struct Libvirt {
    lanes: Addr<LibvirtLane>,
    network: NetworkSpec,
    virt_type: VirtType,
    cache: HostCache,
}

impl Libvirt {
    /// Sets lanes up; nothing is asked of libvirtd yet. May take ten seconds, to find out whether KVM works.
    ///
    /// # Errors
    /// A sentence about the settings.
    pub async fn open(config: &Config, state: &Path) -> Result<Libvirt, String> {
        let network = network_spec(&config.network)?;
        let settings = Settings {
            uri: "qemu:///system".into(),
            socket: config.libvirt_socket.clone(),
            runtime_dir: runtime_dir(state),
            // Emulated guests on a busy host answer their agents slowly.
            deadlines: Deadlines::scaled(1.5),
        };
        let wanted = match config.virt_type {
            VirtTypeWanted::Auto => Wanted::Auto,
            VirtTypeWanted::Kvm => Wanted::Always(VirtType::Kvm),
            VirtTypeWanted::Qemu => Wanted::Always(VirtType::Qemu),
        };
        let vms = state.join("vms");
        let probed =
            tokio::task::spawn_blocking(move || (choose(wanted, None), HostCache::possible_in(&vms)));
        let (Chosen { virt_type, reason }, cache) = probed.await.map_err(|error| error.to_string())?;
        tracing::info!(%virt_type, reason, "machines run by");
        let lanes = SyncArbiter::start(LANES, move || LibvirtLane::new(settings.clone()));
        Ok(Libvirt { lanes, network, virt_type, cache })
    }

    async fn call<T: Send + 'static>(
        &self,
        deed: impl FnOnce(&mut Connection) -> Outcome<T> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        match ask(&self.lanes, OnLane(Box::new(deed)), MAILBOX_DEADLINE).await {
            Ok(outcome) => outcome.map_err(sorted),
            Err(silent) => Err(HypervisorError::Unavailable(silent.to_string())),
        }
    }
}

/// A short path of our own for relay sockets: `/run/loam/…`, with the state folder's digest, so that two services on
/// one host do not meet.
fn runtime_dir(state: &Path) -> PathBuf {
    let digest = hex::encode(Sha256::digest(state.as_os_str().as_encoded_bytes()));
    PathBuf::from(format!("/run/loam/libvirt-{}", &digest[..12]))
}

fn sorted(error: Error) -> HypervisorError {
    let text = chain(&error);
    match error {
        Error::AgentSilent { .. } => HypervisorError::AgentSilent(text),
        Error::Unknown { .. } => HypervisorError::Unknown(text),
        other if other.is_transient() => HypervisorError::Unavailable(text),
        _ => HypervisorError::Failed(text),
    }
}

#[async_trait]
impl Hypervisor for Libvirt {
    fn name(&self) -> &'static str {
        "libvirt"
    }

    async fn prepare(&self) -> Result<(), HypervisorError> {
        let network = self.network.clone();
        self.call(move |line| line.ensure_network(&network)).await.map(drop)
    }

    async fn check(&self) -> Result<(), HypervisorError> {
        self.call(Connection::version).await.map(drop)
    }

    async fn define(&self, machine: &Machine) -> Result<(), HypervisorError> {
        let spec = self.spec(machine)?;
        self.call(move |line| line.define(&spec)).await
    }

    async fn start(&self, uuid: &str) -> Result<(), HypervisorError> {
        // Whoever restarted the host or took the network down need not know that we want it.
        self.prepare().await?;
        let uuid = uuid_of(uuid)?;
        self.call(move |line| line.start(uuid)).await.map(drop)
    }

    async fn request_shutdown(&self, uuid: &str, way: ShutdownMode) -> Result<(), HypervisorError> {
        let uuid = uuid_of(uuid)?;
        let way = match way {
            ShutdownMode::Agent => ShutdownWay::Agent,
            ShutdownMode::Acpi => ShutdownWay::Acpi,
        };
        self.call(move |line| line.request_shutdown(uuid, way)).await.map(drop)
    }

    async fn destroy(&self, uuid: &str) -> Result<(), HypervisorError> {
        let uuid = uuid_of(uuid)?;
        self.call(move |line| line.destroy(uuid)).await.map(drop)
    }

    async fn undefine(&self, uuid: &str) -> Result<(), HypervisorError> {
        let uuid = uuid_of(uuid)?;
        self.call(move |line| line.undefine(uuid)).await.map(drop)
    }

    async fn power(&self, uuid: &str) -> Result<Option<Power>, HypervisorError> {
        let uuid = uuid_of(uuid)?;
        let doing = self.call(move |line| line.power(uuid)).await?;
        Ok(doing.map(power_of))
    }

    async fn address(&self, uuid: &str, mac: &str) -> Result<Option<IpAddr>, HypervisorError> {
        let uuid = uuid_of(uuid)?;
        let mac: MacAddress = mac.parse().map_err(|error| HypervisorError::Failed(format!("{error}")))?;
        self.call(move |line| line.address(uuid, mac)).await
    }

    async fn agent_answers(&self, uuid: &str) -> Result<bool, HypervisorError> {
        let uuid = uuid_of(uuid)?;
        match self.call(move |line| line.agent_ping(uuid)).await {
            Ok(()) => Ok(true),
            Err(HypervisorError::AgentSilent(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn freeze(&self, uuid: &str) -> Result<(), HypervisorError> {
        let uuid = uuid_of(uuid)?;
        self.call(move |line| line.freeze(uuid)).await.map(drop)
    }

    async fn thaw(&self, uuid: &str) -> Result<(), HypervisorError> {
        let uuid = uuid_of(uuid)?;
        self.call(move |line| line.thaw(uuid)).await.map(drop)
    }

    async fn open_exports(
        &self,
        uuid: &str,
        disks: &[Disk],
        folder: &Path,
    ) -> Result<Vec<Export>, HypervisorError> {
        let uuid = uuid_of(uuid)?;
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
        self.call(move |line| line.begin_backup(uuid, &spec)).await?;
        let export = |disk: &Disk| Export {
            disk: disk.name.clone(),
            socket: socket.clone(),
            export: disk.name.to_string(),
        };
        Ok(disks.iter().map(export).collect())
    }

    async fn close_exports(&self, uuid: &str, folder: &Path) -> Result<(), HypervisorError> {
        let uuid = uuid_of(uuid)?;
        let socket = socket_in(folder);
        let ended = self.call(move |line| {
            // A backup that somebody else began is his to end.
            match line.running_backup(uuid)? {
                Some(running) if running.socket == socket => line.end_backup(uuid).map(drop),
                _ => Ok(()),
            }
        });
        match ended.await {
            Err(HypervisorError::Unknown(_)) => Ok(()),
            other => other,
        }
    }

    async fn marked(&self, realm: &str) -> Result<Vec<MarkedVm>, HypervisorError> {
        let found = self.call(Connection::marked_domains).await?;
        let ours = found.into_iter().filter(|found| found.mark.org == realm);
        let told = ours.map(|found| MarkedVm {
            uuid: found.uuid.to_string(),
            power: power_of(found.power),
            mark: VmMark {
                realm: found.mark.org,
                vm: found.mark.vm,
                generation: found.mark.generation,
                operation: found.mark.operation,
            },
        });
        Ok(told.collect())
    }
}

fn socket_in(folder: &Path) -> PathBuf {
    folder.join("nbd.sock")
}

fn power_of(doing: Doing) -> Power {
    match doing {
        Doing::Running | Doing::Paused | Doing::ShuttingDown => Power::Running,
        Doing::Off | Doing::Crashed => Power::Off,
    }
}
