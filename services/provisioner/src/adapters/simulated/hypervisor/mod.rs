//! The simulated hypervisor. Its truth is one small file for each VM; what ran before a restart runs again after it.
//! `calls` has the calls of the port.

mod calls;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use contract::provisioner::PauseReason;
use contract::{ByteCount, VmName, VmUuid};
use provisioner_domain::{HostCapacity, PowerState};
use serde::{Deserialize, Serialize};

pub use self::calls::SimulatedCall;
use super::faults::Faults;
use super::guest::Guest;
use crate::ports::{BoxError, ChangeCallback, HypervisorError, HypervisorErrorKind, VmSpec};

/// Addresses that are tried when one is in use: two simulations may share a host's loopback.
const ADDRESSES_TRIED: u16 = 64;

/// Pretends to run VMs.
pub struct SimulatedHypervisor {
    folder: PathBuf,
    state: Mutex<State>,
    faults: Arc<Faults>,
}

/// A simulated VM uses nothing.
const CAPACITY: HostCapacity = HostCapacity { cpus: 64, memory: ByteCount::gib(64 * 1024) };

struct State {
    capacity: HostCapacity,
    vms: BTreeMap<VmUuid, SimulatedVm>,
    guests: HashMap<VmUuid, Guest>,
    frozen: HashSet<VmUuid>,
    flushed: HashSet<VmUuid>,
    renewed: HashMap<VmUuid, VmName>,
    watcher: Option<ChangeCallback>,
    sends_events: bool,
}

impl Default for State {
    fn default() -> State {
        State {
            capacity: CAPACITY,
            vms: BTreeMap::new(),
            guests: HashMap::new(),
            frozen: HashSet::new(),
            flushed: HashSet::new(),
            renewed: HashMap::new(),
            watcher: None,
            sends_events: false,
        }
    }
}

/// What is kept of a VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct SimulatedVm {
    spec: VmSpec,
    power: PowerState,
    /// How it went off, as long as that is known.
    off_in_order: Option<bool>,
    address: IpAddr,
}

fn failed(attempt: impl Into<String>, cause: impl Into<BoxError>) -> HypervisorError {
    HypervisorError::new(HypervisorErrorKind::Failed, attempt, cause)
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
            let running = state.vms.values().filter(|vm| vm.power == PowerState::Running);
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

    /// Whether it reports what happens to its VMs, as a real one does. At first it does not: tests look at what is noticed
    /// only when it is asked.
    pub fn send_events(&self, on: bool) {
        self.state().sends_events = on;
    }

    /// Changes what its host has.
    pub fn set_capacity(&self, capacity: HostCapacity) {
        self.state().capacity = capacity;
    }

    /// Pauses a VM that runs, as a person or a failing disk would.
    ///
    /// # Errors
    /// When there is none, or its file cannot be written.
    pub fn pause(&self, uuid: &VmUuid, reason: PauseReason) -> Result<(), HypervisorError> {
        if self.known(uuid)?.power != PowerState::Running {
            return Ok(());
        }
        self.leave(uuid, PowerState::Paused(reason), None)
    }

    /// Ends a VM as a power cut of its host does: afterwards nobody knows how it went off.
    ///
    /// # Errors
    /// When its file cannot be written.
    pub fn cut_power(&self, uuid: &VmUuid) -> Result<(), HypervisorError> {
        self.go_off(uuid, None)?;
        self.store(&SimulatedVm { off_in_order: None, ..self.known(uuid)? })
    }

    /// Puts another file in place of a VM's first disk, as a person does who makes a snapshot of it.
    ///
    /// # Errors
    /// When there is no such VM, or its file cannot be written.
    pub fn replace_disk(&self, uuid: &VmUuid, path: &Path) -> Result<(), HypervisorError> {
        let mut vm = self.known(uuid)?;
        vm.spec.disks[0].image.path = path.into();
        self.store(&vm)
    }

    /// Whether a guest's file systems are frozen now.
    pub fn is_frozen(&self, uuid: &VmUuid) -> bool {
        self.state().frozen.contains(uuid)
    }

    /// Whether a guest that runs has written its disks since it was started.
    pub fn is_flushed(&self, uuid: &VmUuid) -> bool {
        self.state().flushed.contains(uuid)
    }

    /// Takes that over, for the simulated shell.
    pub(super) fn flushed(&self, uuid: &VmUuid) {
        self.state().flushed.insert(uuid.clone());
    }

    /// The host name that a copied guest was given with its new identity.
    pub fn renewed_name(&self, uuid: &VmUuid) -> Option<VmName> {
        self.state().renewed.get(uuid).cloned()
    }

    /// Takes that over, for the simulated shell; its disks are written, too.
    pub(super) fn identity_renewed(&self, uuid: &VmUuid, name: &VmName) {
        self.state().renewed.insert(uuid.clone(), name.clone());
        self.flushed(uuid);
    }

    /// A VM that runs, and its address, for the simulated shell.
    pub(super) fn running(&self, uuid: &VmUuid) -> Option<(VmSpec, IpAddr)> {
        let state = self.state();
        let vm = state.vms.get(uuid).filter(|vm| vm.power == PowerState::Running)?;
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
        let watcher = {
            let mut state = self.state();
            state.vms.insert(vm.spec.uuid.clone(), vm.clone());
            state.watcher.clone().filter(|_| state.sends_events)
        };
        if let Some(changed) = watcher {
            changed();
        }
        Ok(())
    }

    fn known(&self, uuid: &VmUuid) -> Result<SimulatedVm, HypervisorError> {
        let unknown = || {
            let attempt = format!("find VM {uuid}");
            HypervisorError::new(HypervisorErrorKind::UnknownVm, attempt, "it is not defined")
        };
        self.state().vms.get(uuid).cloned().ok_or_else(unknown)
    }

    /// A VM that has to be on; `verb` says what for, in an error.
    fn known_on(&self, uuid: &VmUuid, verb: &str) -> Result<SimulatedVm, HypervisorError> {
        let vm = self.known(uuid)?;
        if vm.power.is_on() { Ok(vm) } else { Err(failed(format!("{verb} VM {uuid}"), "it is off")) }
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
                    (vm.power, vm.off_in_order) = (PowerState::Running, None);
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
    fn leave(
        &self,
        uuid: &VmUuid,
        power: PowerState,
        off_in_order: Option<bool>,
    ) -> Result<(), HypervisorError> {
        let Ok(vm) = self.known(uuid) else {
            return Ok(());
        };
        {
            let mut state = self.state();
            state.guests.remove(uuid);
            state.frozen.remove(uuid);
            state.flushed.remove(uuid);
        }
        self.store(&SimulatedVm { power, off_in_order, ..vm })
    }

    /// Ends a VM that is on.
    fn go_off(&self, uuid: &VmUuid, in_order: Option<bool>) -> Result<(), HypervisorError> {
        let is_on = self.known(uuid).is_ok_and(|vm| vm.power.is_on());
        if is_on { self.leave(uuid, PowerState::Off, in_order) } else { Ok(()) }
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
