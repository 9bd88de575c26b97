//! The simulated hypervisor. Its truth is one small file a machine; what runs is lit again after a restart.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::faults::{Call, Faults};
use super::guest::Guest;
use crate::adapters::qemu_img::{serve_disk, stop_serving};
use crate::ports::{Disk, Export, Hypervisor, HypervisorError, Machine, MarkedVm, Power, ShutdownMode};

/// Addresses that are tried when one is in use: two simulations may share a host's loopback.
const ADDRESSES_TRIED: u16 = 64;

/// Pretends to run machines.
pub struct SimulatedHypervisor {
    folder: PathBuf,
    state: Mutex<ServiceState>,
    faults: Arc<Faults>,
}

#[derive(Default)]
struct ServiceState {
    machines: BTreeMap<String, Pretended>,
    guests: HashMap<String, Guest>,
    frozen: HashSet<String>,
}

/// What is kept of a machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Pretended {
    machine: Machine,
    running: bool,
    address: IpAddr,
}

fn failed(what: &str, error: impl std::fmt::Display) -> HypervisorError {
    HypervisorError::Failed(format!("{what}: {error}"))
}

impl SimulatedHypervisor {
    /// Takes up the simulation whose files lie in `folder`, and lights the machines that ran.
    ///
    /// # Errors
    /// When the files cannot be read.
    pub async fn open(folder: &Path) -> Result<SimulatedHypervisor, HypervisorError> {
        let cannot =
            |error: std::io::Error| failed(&format!("open the simulation in {}", folder.display()), error);
        std::fs::create_dir_all(folder).map_err(cannot)?;
        let this =
            SimulatedHypervisor { folder: folder.into(), state: Mutex::default(), faults: Arc::default() };
        for entry in std::fs::read_dir(folder).map_err(cannot)? {
            let path = entry.map_err(cannot)?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let text = std::fs::read(&path).map_err(cannot)?;
            let pretended: Pretended = serde_json::from_slice(&text)
                .map_err(|error| failed(&format!("read {}", path.display()), error))?;
            this.state().machines.insert(pretended.machine.uuid.clone(), pretended);
        }
        let running: Vec<String> = this
            .state()
            .machines
            .values()
            .filter(|pretended| pretended.running)
            .map(|pretended| pretended.machine.uuid.clone())
            .collect();
        for uuid in running {
            this.light(&uuid).await?;
        }
        Ok(this)
    }

    /// What goes wrong, to be switched by tests.
    pub fn faults(&self) -> &Arc<Faults> {
        &self.faults
    }

    /// Whether a machine's file systems are held back now.
    pub fn is_frozen(&self, uuid: &str) -> bool {
        self.state().frozen.contains(uuid)
    }

    /// The machine behind an address that runs, for the simulated shell.
    pub(super) fn running(&self, uuid: &str) -> Option<(Machine, IpAddr)> {
        let state = self.state();
        let pretended = state.machines.get(uuid).filter(|pretended| pretended.running)?;
        Some((pretended.machine.clone(), pretended.address))
    }

    fn state(&self) -> MutexGuard<'_, ServiceState> {
        self.state.lock().expect("no code here panics while it holds the lock")
    }

    fn file(&self, uuid: &str) -> PathBuf {
        self.folder.join(format!("{uuid}.json"))
    }

    fn keep(&self, pretended: &Pretended) -> Result<(), HypervisorError> {
        let place = self.file(&pretended.machine.uuid);
        let part = place.with_extension("part");
        let text = serde_json::to_vec_pretty(pretended).expect("plain data");
        std::fs::write(&part, text)
            .and_then(|()| std::fs::rename(&part, &place))
            .map_err(|error| failed(&format!("write {}", place.display()), error))?;
        self.state().machines.insert(pretended.machine.uuid.clone(), pretended.clone());
        Ok(())
    }

    fn known(&self, uuid: &str) -> Result<Pretended, HypervisorError> {
        let unknown = || HypervisorError::Unknown(format!("the simulation knows no machine {uuid}"));
        self.state().machines.get(uuid).cloned().ok_or_else(unknown)
    }

    /// Opens the guest's ports, at its address or at the next that is free.
    async fn light(&self, uuid: &str) -> Result<(), HypervisorError> {
        if self.state().guests.contains_key(uuid) {
            return Ok(());
        }
        let mut pretended = self.known(uuid)?;
        let mut last = None;
        for _ in 0..ADDRESSES_TRIED {
            match Guest::light(&pretended.machine, pretended.address).await {
                Ok(guest) => {
                    pretended.running = true;
                    self.keep(&pretended)?;
                    self.state().guests.insert(uuid.into(), guest);
                    return Ok(());
                }
                Err(error) => last = Some(error),
            }
            pretended.address = next_address(pretended.address);
        }
        let error = last.expect("at least one was tried");
        Err(failed("find an address for a simulated guest", error))
    }

    fn put_out(&self, uuid: &str) -> Result<(), HypervisorError> {
        let Ok(mut pretended) = self.known(uuid) else {
            return Ok(());
        };
        {
            let mut state = self.state();
            state.guests.remove(uuid);
            state.frozen.remove(uuid);
        }
        pretended.running = false;
        self.keep(&pretended)
    }
}

/// An address of its own on loopback: 127.77.x.y, from the end of the machine's UUID.
fn first_address(uuid: &str) -> IpAddr {
    let digits = uuid.get(uuid.len().saturating_sub(4)..).unwrap_or_default();
    let [third, fourth] = u16::from_str_radix(digits, 16).unwrap_or(1).to_be_bytes();
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
        self.faults.meet(Call::Prepare).await
    }

    async fn check(&self) -> Result<(), HypervisorError> {
        self.faults.meet(Call::Check).await
    }

    async fn define(&self, machine: &Machine) -> Result<(), HypervisorError> {
        self.faults.meet(Call::Define).await?;
        let before = self.known(&machine.uuid).ok();
        let taken = self
            .state()
            .machines
            .values()
            .any(|other| other.machine.name == machine.name && other.machine.uuid != machine.uuid);
        if taken {
            return Err(HypervisorError::Failed(format!("there is another machine {}", machine.name)));
        }
        self.keep(&Pretended {
            machine: machine.clone(),
            running: before.as_ref().is_some_and(|before| before.running),
            address: before.map_or_else(|| first_address(&machine.uuid), |before| before.address),
        })
    }

    async fn start(&self, uuid: &str) -> Result<(), HypervisorError> {
        self.faults.meet(Call::Start).await?;
        self.light(uuid).await
    }

    async fn request_shutdown(&self, uuid: &str, _: ShutdownMode) -> Result<(), HypervisorError> {
        self.faults.meet(Call::RequestShutdown).await?;
        self.known(uuid)?;
        if self.faults.is_deaf(Call::RequestShutdown) {
            return Ok(());
        }
        self.put_out(uuid)
    }

    async fn destroy(&self, uuid: &str) -> Result<(), HypervisorError> {
        self.faults.meet(Call::Destroy).await?;
        self.put_out(uuid)
    }

    async fn undefine(&self, uuid: &str) -> Result<(), HypervisorError> {
        self.faults.meet(Call::Undefine).await?;
        let running = self.known(uuid).is_ok_and(|pretended| pretended.running);
        if running {
            return Err(HypervisorError::Failed(format!("machine {uuid} runs")));
        }
        self.state().machines.remove(uuid);
        match std::fs::remove_file(self.file(uuid)) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed("forget a simulated machine", error)),
        }
    }

    async fn power(&self, uuid: &str) -> Result<Option<Power>, HypervisorError> {
        self.faults.meet(Call::Power).await?;
        Ok(self.known(uuid).ok().map(|pretended| power(&pretended)))
    }

    async fn address(&self, uuid: &str, _: &str) -> Result<Option<IpAddr>, HypervisorError> {
        self.faults.meet(Call::Address).await?;
        let pretended = self.known(uuid)?;
        Ok((pretended.running && !self.faults.is_deaf(Call::Address)).then_some(pretended.address))
    }

    async fn agent_answers(&self, uuid: &str) -> Result<bool, HypervisorError> {
        self.faults.meet(Call::AgentAnswers).await?;
        Ok(self.known(uuid)?.running && !self.faults.is_deaf(Call::AgentAnswers))
    }

    async fn freeze(&self, uuid: &str) -> Result<(), HypervisorError> {
        self.faults.meet(Call::Freeze).await?;
        if self.faults.is_deaf(Call::Freeze) || !self.known(uuid)?.running {
            return Err(HypervisorError::AgentSilent(format!("the agent of {uuid} is silent")));
        }
        self.state().frozen.insert(uuid.into());
        Ok(())
    }

    async fn thaw(&self, uuid: &str) -> Result<(), HypervisorError> {
        self.faults.meet(Call::Thaw).await?;
        self.state().frozen.remove(uuid);
        Ok(())
    }

    async fn open_exports(
        &self,
        uuid: &str,
        disks: &[Disk],
        folder: &Path,
    ) -> Result<Vec<Export>, HypervisorError> {
        self.faults.meet(Call::OpenExports).await?;
        if !self.known(uuid)?.running {
            return Err(HypervisorError::Failed(format!("machine {uuid} is off")));
        }
        let mut exports = Vec::new();
        for disk in disks {
            let socket = folder.join(format!("{}.sock", disk.name));
            serve_disk(disk, &socket)
                .await
                .map_err(|error| failed("open a simulated machine's disk", error))?;
            exports.push(Export { disk: disk.name.clone(), export: disk.name.to_string(), socket });
        }
        Ok(exports)
    }

    async fn close_exports(&self, _: &str, folder: &Path) -> Result<(), HypervisorError> {
        self.faults.meet(Call::CloseExports).await?;
        let Ok(entries) = std::fs::read_dir(folder) else {
            return Ok(());
        };
        for entry in entries.filter_map(Result::ok) {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "pid") {
                stop_serving(&path.with_extension("sock"))
                    .await
                    .map_err(|error| failed("close a simulated machine's disk", error))?;
            }
        }
        Ok(())
    }

    async fn marked(&self, realm: &str) -> Result<Vec<MarkedVm>, HypervisorError> {
        self.faults.meet(Call::MarkedVm).await?;
        let state = self.state();
        let ours = state.machines.values().filter(|pretended| pretended.machine.mark.realm == realm);
        let told = ours.map(|pretended| MarkedVm {
            uuid: pretended.machine.uuid.clone(),
            power: power(pretended),
            mark: pretended.machine.mark.clone(),
        });
        Ok(told.collect())
    }
}

fn power(pretended: &Pretended) -> Power {
    if pretended.running { Power::Running } else { Power::Off }
}
