//! The simulated hypervisor. Its truth is one small file for each VM; what ran before a restart runs again after it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use contract::provisioner::PauseReason;
use contract::{MacAddress, Realm, VmUuid};
use provisioner_domain::Power;
use serde::{Deserialize, Serialize};

use super::faults::{Call, Faults};
use super::guest::Guest;
use crate::adapters::qemu_img::{serve_disk, stop_serving};
use crate::ports::{
    Cause, Disk, Export, Hypervisor, HypervisorError, HypervisorFailure, MarkedVm, ShutdownMode, VmSpec,
};

/// Addresses that are tried when one is in use: two simulations may share a host's loopback.
const ADDRESSES_TRIED: u16 = 64;

/// Pretends to run VMs.
pub struct SimulatedHypervisor {
    folder: PathBuf,
    state: Mutex<State>,
    faults: Arc<Faults>,
}

#[derive(Default)]
struct State {
    vms: BTreeMap<VmUuid, SimulatedVm>,
    guests: HashMap<VmUuid, Guest>,
    frozen: HashSet<VmUuid>,
}

/// What is kept of a VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct SimulatedVm {
    spec: VmSpec,
    power: Power,
    address: IpAddr,
}

fn failed(attempt: impl Into<String>, cause: impl Into<Cause>) -> HypervisorError {
    HypervisorError::new(HypervisorFailure::Failed, attempt, cause)
}

impl SimulatedHypervisor {
    /// Opens the simulation whose files are in `folder`, and runs the VMs that ran before.
    ///
    /// # Errors
    /// When the files cannot be read.
    pub async fn open(folder: &Path) -> Result<SimulatedHypervisor, HypervisorError> {
        let cannot =
            |error: std::io::Error| failed(format!("open the simulation in {}", folder.display()), error);
        std::fs::create_dir_all(folder).map_err(cannot)?;
        let this =
            SimulatedHypervisor { folder: folder.into(), state: Mutex::default(), faults: Arc::default() };
        for entry in std::fs::read_dir(folder).map_err(cannot)? {
            let path = entry.map_err(cannot)?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let text = std::fs::read(&path).map_err(cannot)?;
            let vm: SimulatedVm = serde_json::from_slice(&text)
                .map_err(|error| failed(format!("read {}", path.display()), error))?;
            this.state().vms.insert(vm.spec.uuid.clone(), vm);
        }
        let running: Vec<VmUuid> = {
            let state = this.state();
            let running = state.vms.values().filter(|vm| vm.power == Power::Running);
            running.map(|vm| vm.spec.uuid.clone()).collect()
        };
        for uuid in running {
            this.run(&uuid).await?;
        }
        Ok(this)
    }

    /// The faults, to be switched by tests.
    pub fn faults(&self) -> &Arc<Faults> {
        &self.faults
    }

    /// Pauses a VM that runs, as a person or a failing disk would.
    ///
    /// # Errors
    /// When there is none, or its file cannot be written.
    pub fn pause(&self, uuid: &VmUuid, reason: PauseReason) -> Result<(), HypervisorError> {
        if self.known(uuid)?.power != Power::Running {
            return Ok(());
        }
        self.leave(uuid, Power::Paused(reason))
    }

    /// Whether a guest's file systems are frozen now.
    pub fn is_frozen(&self, uuid: &VmUuid) -> bool {
        self.state().frozen.contains(uuid)
    }

    /// A VM that runs, and its address, for the simulated shell.
    pub(super) fn running(&self, uuid: &VmUuid) -> Option<(VmSpec, IpAddr)> {
        let state = self.state();
        let vm = state.vms.get(uuid).filter(|vm| vm.power == Power::Running)?;
        Some((vm.spec.clone(), vm.address))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code here panics while it holds the lock")
    }

    fn file(&self, uuid: &VmUuid) -> PathBuf {
        self.folder.join(format!("{uuid}.json"))
    }

    fn store(&self, vm: &SimulatedVm) -> Result<(), HypervisorError> {
        let path = self.file(&vm.spec.uuid);
        let part = path.with_extension("part");
        let text = serde_json::to_vec_pretty(vm).expect("plain data");
        std::fs::write(&part, text)
            .and_then(|()| std::fs::rename(&part, &path))
            .map_err(|error| failed(format!("write {}", path.display()), error))?;
        self.state().vms.insert(vm.spec.uuid.clone(), vm.clone());
        Ok(())
    }

    fn known(&self, uuid: &VmUuid) -> Result<SimulatedVm, HypervisorError> {
        let unknown = || {
            let attempt = format!("find VM {uuid}");
            HypervisorError::new(HypervisorFailure::Unknown, attempt, "it is not defined")
        };
        self.state().vms.get(uuid).cloned().ok_or_else(unknown)
    }

    /// Opens the guest's ports, at its address or at the next that is free.
    async fn run(&self, uuid: &VmUuid) -> Result<(), HypervisorError> {
        if self.state().guests.contains_key(uuid) {
            return Ok(());
        }
        let mut vm = self.known(uuid)?;
        let mut last = None;
        for _ in 0..ADDRESSES_TRIED {
            match Guest::serve(&vm.spec, vm.address).await {
                Ok(guest) => {
                    vm.power = Power::Running;
                    self.store(&vm)?;
                    self.state().guests.insert(uuid.clone(), guest);
                    return Ok(());
                }
                Err(error) => last = Some(error),
            }
            vm.address = next_address(vm.address);
        }
        let error = last.expect("at least one was tried");
        Err(failed("find an address for a simulated guest", error))
    }

    /// Closes the guest's ports and leaves it in a power state in which it does not run.
    fn leave(&self, uuid: &VmUuid, power: Power) -> Result<(), HypervisorError> {
        let Ok(vm) = self.known(uuid) else {
            return Ok(());
        };
        {
            let mut state = self.state();
            state.guests.remove(uuid);
            state.frozen.remove(uuid);
        }
        self.store(&SimulatedVm { power, ..vm })
    }
}

/// An address of its own on loopback: 127.77.x.y, from the end of the VM's UUID.
fn first_address(uuid: &VmUuid) -> IpAddr {
    let text = uuid.as_str();
    let [third, fourth] = u16::from_str_radix(&text[text.len() - 4..], 16).unwrap_or(1).to_be_bytes();
    Ipv4Addr::new(127, 77, third, fourth.clamp(1, 254)).into()
}

fn next_address(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let [first, second, third, fourth] = v4.octets();
            match fourth {
                1..=253 => Ipv4Addr::new(first, second, third, fourth + 1).into(),
                _ => Ipv4Addr::new(first, second, third.wrapping_add(1), 1).into(),
            }
        }
        v6 => v6,
    }
}

#[async_trait]
impl Hypervisor for SimulatedHypervisor {
    fn name(&self) -> &'static str {
        "simulated"
    }

    async fn prepare(&self) -> Result<(), HypervisorError> {
        self.faults.check(Call::Prepare).await
    }

    async fn check(&self) -> Result<(), HypervisorError> {
        self.faults.check(Call::Check).await
    }

    async fn define(&self, spec: &VmSpec) -> Result<(), HypervisorError> {
        self.faults.check(Call::Define).await?;
        let before = self.known(&spec.uuid).ok();
        let taken = self
            .state()
            .vms
            .values()
            .any(|other| other.spec.name == spec.name && other.spec.uuid != spec.uuid);
        if taken {
            return Err(failed(format!("define VM {}", spec.name), "another VM has the name"));
        }
        self.store(&SimulatedVm {
            spec: spec.clone(),
            power: before.as_ref().map_or(Power::Off, |before| before.power),
            address: before.map_or_else(|| first_address(&spec.uuid), |before| before.address),
        })
    }

    async fn start(&self, uuid: &VmUuid) -> Result<(), HypervisorError> {
        self.faults.check(Call::Start).await?;
        if self.known(uuid)?.power.is_on() {
            return Ok(());
        }
        self.run(uuid).await
    }

    async fn resume(&self, uuid: &VmUuid) -> Result<(), HypervisorError> {
        self.faults.check(Call::Resume).await?;
        match self.known(uuid)?.power {
            Power::Running => Ok(()),
            Power::Paused(_) if self.faults.has_no_effect(Call::Resume) => Ok(()),
            Power::Paused(_) => self.run(uuid).await,
            Power::Off | Power::Missing => Err(failed(format!("resume VM {uuid}"), "it is off")),
        }
    }

    async fn suspend(&self, uuid: &VmUuid) -> Result<(), HypervisorError> {
        self.faults.check(Call::Suspend).await?;
        if !self.known(uuid)?.power.is_on() {
            return Err(failed(format!("suspend VM {uuid}"), "it is off"));
        }
        self.pause(uuid, PauseReason::User)
    }

    async fn request_shutdown(&self, uuid: &VmUuid, mode: ShutdownMode) -> Result<(), HypervisorError> {
        self.faults.check(Call::RequestShutdown).await?;
        match self.known(uuid)?.power {
            Power::Paused(_) if mode == ShutdownMode::Agent => {
                let attempt = format!("ask VM {uuid} to shut down");
                Err(HypervisorError::new(HypervisorFailure::AgentSilent, attempt, "it is paused"))
            }
            Power::Running if !self.faults.has_no_effect(Call::RequestShutdown) => {
                self.leave(uuid, Power::Off)
            }
            _ => Ok(()),
        }
    }

    async fn destroy(&self, uuid: &VmUuid) -> Result<(), HypervisorError> {
        self.faults.check(Call::Destroy).await?;
        self.leave(uuid, Power::Off)
    }

    async fn undefine(&self, uuid: &VmUuid) -> Result<(), HypervisorError> {
        self.faults.check(Call::Undefine).await?;
        if self.known(uuid).is_ok_and(|vm| vm.power.is_on()) {
            return Err(failed(format!("undefine VM {uuid}"), "it is on"));
        }
        self.state().vms.remove(uuid);
        match std::fs::remove_file(self.file(uuid)) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed(format!("undefine VM {uuid}"), error)),
        }
    }

    async fn power(&self, uuid: &VmUuid) -> Result<Power, HypervisorError> {
        self.faults.check(Call::Power).await?;
        Ok(self.known(uuid).map_or(Power::Missing, |vm| vm.power))
    }

    async fn address(&self, uuid: &VmUuid, _: &MacAddress) -> Result<Option<IpAddr>, HypervisorError> {
        self.faults.check(Call::Address).await?;
        let vm = self.known(uuid)?;
        Ok((vm.power.is_on() && !self.faults.has_no_effect(Call::Address)).then_some(vm.address))
    }

    async fn agent_answers(&self, uuid: &VmUuid) -> Result<bool, HypervisorError> {
        self.faults.check(Call::AgentAnswers).await?;
        Ok(self.known(uuid)?.power == Power::Running && !self.faults.has_no_effect(Call::AgentAnswers))
    }

    async fn freeze(&self, uuid: &VmUuid) -> Result<(), HypervisorError> {
        self.faults.check(Call::Freeze).await?;
        if self.faults.has_no_effect(Call::Freeze) || self.known(uuid)?.power != Power::Running {
            let attempt = format!("freeze VM {uuid}");
            return Err(HypervisorError::new(HypervisorFailure::AgentSilent, attempt, "no agent answers"));
        }
        self.state().frozen.insert(uuid.clone());
        Ok(())
    }

    async fn thaw(&self, uuid: &VmUuid) -> Result<(), HypervisorError> {
        self.faults.check(Call::Thaw).await?;
        self.state().frozen.remove(uuid);
        Ok(())
    }

    async fn open_exports(
        &self,
        uuid: &VmUuid,
        disks: &[Disk],
        folder: &Path,
    ) -> Result<Vec<Export>, HypervisorError> {
        self.faults.check(Call::OpenExports).await?;
        let attempt = format!("export the disks of VM {uuid}");
        if !self.known(uuid)?.power.is_on() {
            return Err(failed(attempt, "it is off"));
        }
        let mut exports = Vec::new();
        for disk in disks {
            let socket = folder.join(format!("{}.sock", disk.name));
            serve_disk(disk, &socket).await.map_err(|error| failed(attempt.clone(), error))?;
            exports.push(Export { disk: disk.name.clone(), export: disk.name.to_string(), socket });
        }
        Ok(exports)
    }

    async fn close_exports(&self, uuid: &VmUuid, folder: &Path) -> Result<(), HypervisorError> {
        self.faults.check(Call::CloseExports).await?;
        let Ok(entries) = std::fs::read_dir(folder) else {
            return Ok(());
        };
        for entry in entries.filter_map(Result::ok) {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "pid") {
                stop_serving(&path.with_extension("sock"))
                    .await
                    .map_err(|error| failed(format!("close the exports of VM {uuid}"), error))?;
            }
        }
        Ok(())
    }

    async fn marked(&self, realm: &Realm) -> Result<Vec<MarkedVm>, HypervisorError> {
        self.faults.check(Call::Marked).await?;
        let state = self.state();
        let ours = state.vms.values().filter(|vm| vm.spec.mark.realm == *realm);
        let marked = ours.map(|vm| MarkedVm {
            uuid: vm.spec.uuid.clone(),
            power: vm.power,
            mark: vm.spec.mark.clone(),
        });
        Ok(marked.collect())
    }
}
