//! Machines on QEMU, through libvirt: the port `Hypervisor`, carried out on lanes of blocking calls.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use actix::{Addr, SyncArbiter};
use actor::ask;
use async_trait::async_trait;
use provisioner_libvirt::accelerator::{Chosen, Wanted, choose};
use provisioner_libvirt::backup::{BackupDisk, BackupSpec};
use provisioner_libvirt::lifecycle::{Power as Doing, ShutdownWay};
use provisioner_libvirt::network::{NetworkSpec, Reach};
use provisioner_libvirt::{
    BackingImage, Connection, Deadlines, DiskFormat, DiskSpec, DomainSpec, Error, HostCache, MacAddress,
    Mark, NetworkCard, Settings, Uuid, VirtType,
};
use sha2::{Digest, Sha256};

use crate::actors::{LibvirtLane, OnLane, Outcome};
use crate::config::{Config, Network, VirtTypeWanted};
use crate::ports::{
    Disk, Door, Hypervisor, HypervisorError, Image, ImageFormat, Machine, MachineMark, Marked, Power, StopWay,
};
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
        Ok(Libvirt {
            lanes,
            network,
            virt_type,
            cache,
        })
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

    fn spec(&self, machine: &Machine) -> Result<DomainSpec, HypervisorError> {
        let wrong = |what: String| HypervisorError::Failed(format!("machine {}: {what}", machine.name));
        let mac: MacAddress = machine.mac.parse().map_err(|error| wrong(format!("{error}")))?;
        let mib = machine.ram_size.0 >> 20;
        Ok(DomainSpec {
            name: machine.name.clone(),
            uuid: uuid_of(&machine.uuid)?,
            mark: Mark {
                org: machine.mark.realm.clone(),
                vm: machine.mark.vm.clone(),
                generation: machine.mark.generation,
                spec_digest: spec_digest(machine),
                operation: machine.mark.operation.clone(),
            },
            memory_mib: u32::try_from(mib).map_err(|_| wrong(format!("{mib} MiB of memory are too much")))?,
            vcpus: machine.cpu_count,
            virt_type: self.virt_type,
            disks: machine.disks.iter().map(|disk| self.disk_spec(disk)).collect(),
            nocloud: Some(machine.nocloud.clone()),
            network: Some(NetworkCard {
                network: self.network.name.clone(),
                mac,
            }),
            console_log: Some(machine.console_log.clone()),
        })
    }

    fn disk_spec(&self, disk: &Disk) -> DiskSpec {
        let backing = |image: &Image| BackingImage {
            path: image.path.clone(),
            format: format_of(image.format),
        };
        DiskSpec {
            path: disk.image.path.clone(),
            format: format_of(disk.image.format),
            backing: disk.base.iter().map(backing).collect(),
            target: disk.name.to_string(),
            // QEMU cuts it at twenty bytes.
            serial: disk.name.as_str().chars().take(20).collect(),
            cache: self.cache,
        }
    }
}

/// A short path of our own for relay sockets: `/run/loam/…`, with the state folder's digest, so that two services on
/// one host do not meet.
fn runtime_dir(state: &Path) -> PathBuf {
    let digest = hex::encode(Sha256::digest(state.as_os_str().as_encoded_bytes()));
    PathBuf::from(format!("/run/loam/libvirt-{}", &digest[..12]))
}

/// What a machine is made from, but for the operation that made it.
fn spec_digest(machine: &Machine) -> String {
    let mut plain = machine.clone();
    plain.mark.operation = String::new();
    let text = serde_json::to_vec(&plain).expect("a machine is plain data");
    format!("sha256:{}", hex::encode(Sha256::digest(text)))
}

fn format_of(format: ImageFormat) -> DiskFormat {
    match format {
        ImageFormat::Qcow2 => DiskFormat::Qcow2,
        ImageFormat::Raw => DiskFormat::Raw,
    }
}

fn uuid_of(text: &str) -> Result<Uuid, HypervisorError> {
    Uuid::parse_str(text).map_err(|error| HypervisorError::Failed(format!("{text:?} is not a UUID: {error}")))
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

/// The whole network, and DHCP for what lies above the host's own address.
fn network_spec(wanted: &Network) -> Result<NetworkSpec, String> {
    if !(16..=28).contains(&wanted.prefix) {
        return Err(format!(
            "provisioner.network.prefix: must be from 16 to 28, not {}",
            wanted.prefix
        ));
    }
    if wanted.bridge.is_empty() || wanted.bridge.len() > 15 {
        return Err("provisioner.network.bridge: must have 1 to 15 characters".into());
    }
    let mask = u32::MAX << (32 - wanted.prefix);
    let host = u32::from(wanted.address);
    let (first, last) = (host + 1, (host | !mask) - 1);
    let room = last.saturating_sub(first);
    if host & !mask == 0 || room < 4 {
        return Err(format!(
            "provisioner.network.address: {} leaves no room above it for guests; take the network's first address",
            wanted.address
        ));
    }
    Ok(NetworkSpec {
        name: wanted.name.clone(),
        bridge: wanted.bridge.clone(),
        host_address: wanted.address,
        prefix_length: wanted.prefix,
        dhcp: (Ipv4Addr::from(first), Ipv4Addr::from(last)),
        reach: Reach::World,
    })
}

#[async_trait]
impl Hypervisor for Libvirt {
    fn name(&self) -> &'static str {
        "libvirt"
    }

    async fn prepare(&self) -> Result<(), HypervisorError> {
        let network = self.network.clone();
        self.call(move |line| line.ensure_network(&network))
            .await
            .map(drop)
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

    async fn ask_to_stop(&self, uuid: &str, way: StopWay) -> Result<(), HypervisorError> {
        let uuid = uuid_of(uuid)?;
        let way = match way {
            StopWay::Agent => ShutdownWay::Agent,
            StopWay::PowerButton => ShutdownWay::PowerButton,
        };
        self.call(move |line| line.request_shutdown(uuid, way))
            .await
            .map(drop)
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
        let mac: MacAddress = mac
            .parse()
            .map_err(|error| HypervisorError::Failed(format!("{error}")))?;
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

    async fn open_doors(
        &self,
        uuid: &str,
        disks: &[Disk],
        folder: &Path,
    ) -> Result<Vec<Door>, HypervisorError> {
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
        let door = |disk: &Disk| Door {
            disk: disk.name.clone(),
            socket: socket.clone(),
            export: disk.name.to_string(),
        };
        Ok(disks.iter().map(door).collect())
    }

    async fn close_doors(&self, uuid: &str, folder: &Path) -> Result<(), HypervisorError> {
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

    async fn marked(&self, realm: &str) -> Result<Vec<Marked>, HypervisorError> {
        let found = self.call(Connection::marked_domains).await?;
        let ours = found.into_iter().filter(|found| found.mark.org == realm);
        let told = ours.map(|found| Marked {
            uuid: found.uuid.to_string(),
            power: power_of(found.power),
            mark: MachineMark {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: &str, prefix: u8) -> Result<NetworkSpec, String> {
        network_spec(&Network {
            name: "loam".into(),
            bridge: "loam0".into(),
            address: address.parse().expect("an address"),
            prefix,
        })
    }

    #[test]
    fn guests_get_the_addresses_above_the_hosts_own() {
        let spec = network("10.88.0.1", 24).expect("room");
        assert_eq!(
            spec.dhcp,
            (Ipv4Addr::new(10, 88, 0, 2), Ipv4Addr::new(10, 88, 0, 254))
        );
    }

    #[test]
    fn a_network_without_room_is_refused_by_the_name_of_its_key() {
        for (address, prefix) in [("10.88.0.1", 29), ("10.88.0.0", 24), ("10.88.0.254", 24)] {
            let refused = network(address, prefix).expect_err("no room");
            assert!(refused.starts_with("provisioner.network."), "{refused}");
        }
    }
}
