//! The calls of the port `Hypervisor`, each with its fault.

use std::net::IpAddr;
use std::path::Path;

use async_trait::async_trait;
use contract::provisioner::PauseReason;
use contract::{MacAddress, Realm, VmUuid};
use provisioner_domain::{HostCapacity, HypervisorInfo, PowerState};

use super::{SimulatedHypervisor, SimulatedVm, failed, first_address};
use crate::adapters::qemu_img::{serve_disk, stop_serving};
use crate::ports::{
    ChangeCallback, Disk, Export, FoundDisk, GuestShutdownMethod, Hypervisor, HypervisorError,
    HypervisorErrorKind, MarkedVm, VmSpec, disk_changes,
};

/// The calls that can have a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the port's method of that name")]
pub enum SimulatedCall {
    Prepare,
    Check,
    Capacity,
    Define,
    Definition,
    RestoreDefinition,
    Disks,
    Start,
    Resume,
    Suspend,
    RequestShutdown,
    Destroy,
    Undefine,
    Power,
    WentOffInOrder,
    Address,
    AgentAnswers,
    Freeze,
    Thaw,
    OpenExports,
    CloseExports,
    Marked,
    /// Not the hypervisor's: a login of the simulated shell.
    Shell,
}

#[async_trait]
impl Hypervisor for SimulatedHypervisor {
    fn info(&self) -> HypervisorInfo {
        HypervisorInfo { name: "simulated", emulation_reason: None }
    }

    async fn prepare(&self) -> Result<(), HypervisorError> {
        self.faults.check(SimulatedCall::Prepare).await
    }

    fn watch(&self, changed: ChangeCallback) -> Result<(), HypervisorError> {
        self.state().watcher = Some(changed);
        Ok(())
    }

    async fn capacity(&self) -> Result<HostCapacity, HypervisorError> {
        self.faults.check(SimulatedCall::Capacity).await?;
        Ok(self.state().capacity)
    }

    async fn check(&self) -> Result<(), HypervisorError> {
        self.faults.check(SimulatedCall::Check).await
    }

    async fn define(&self, spec: &VmSpec) -> Result<(), HypervisorError> {
        self.faults.check(SimulatedCall::Define).await?;
        if let Ok(before) = self.known(&spec.uuid) {
            return match disk_changes(&spec.uuid, &spec.disks, &found_disks(&before)) {
                None => Ok(()),
                Some(changes) => {
                    let attempt = format!("define VM {}", spec.name);
                    Err(HypervisorError::new(HypervisorErrorKind::DisksChanged, attempt, changes))
                }
            };
        }
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
            power: PowerState::Off,
            off_in_order: None,
            address: first_address(&spec.uuid),
        })
    }

    async fn definition(&self, uuid: &VmUuid) -> Result<Option<String>, HypervisorError> {
        self.faults.check(SimulatedCall::Definition).await?;
        let text = |vm: SimulatedVm| serde_json::to_string(&vm).expect("plain data");
        Ok(self.known(uuid).ok().map(text))
    }

    async fn restore_definition(&self, uuid: &VmUuid, definition: &str) -> Result<(), HypervisorError> {
        self.faults.check(SimulatedCall::RestoreDefinition).await?;
        if self.known(uuid).is_ok() {
            return Ok(());
        }
        let vm: SimulatedVm = serde_json::from_str(definition)
            .map_err(|error| failed(format!("define VM {uuid} again"), error))?;
        self.store(&SimulatedVm { power: PowerState::Off, off_in_order: None, ..vm })
    }

    async fn disks(&self, uuid: &VmUuid) -> Result<Vec<FoundDisk>, HypervisorError> {
        self.faults.check(SimulatedCall::Disks).await?;
        Ok(found_disks(&self.known(uuid)?))
    }

    async fn start(&self, uuid: &VmUuid) -> Result<(), HypervisorError> {
        self.faults.check(SimulatedCall::Start).await?;
        if self.known(uuid)?.power.is_on() {
            return Ok(());
        }
        self.run(uuid).await
    }

    async fn resume(&self, uuid: &VmUuid) -> Result<(), HypervisorError> {
        self.faults.check(SimulatedCall::Resume).await?;
        match self.known(uuid)?.power {
            PowerState::Running => Ok(()),
            PowerState::Paused(_) if self.faults.has_no_effect(SimulatedCall::Resume) => Ok(()),
            PowerState::Paused(_) => self.run(uuid).await,
            PowerState::Off | PowerState::Missing => Err(failed(format!("resume VM {uuid}"), "it is off")),
        }
    }

    async fn suspend(&self, uuid: &VmUuid) -> Result<(), HypervisorError> {
        self.faults.check(SimulatedCall::Suspend).await?;
        self.known_on(uuid, "suspend")?;
        self.pause(uuid, PauseReason::User)
    }

    async fn request_shutdown(
        &self,
        uuid: &VmUuid,
        mode: GuestShutdownMethod,
    ) -> Result<(), HypervisorError> {
        self.faults.check(SimulatedCall::RequestShutdown).await?;
        match self.known(uuid)?.power {
            PowerState::Paused(_) if mode == GuestShutdownMethod::Agent => {
                let attempt = format!("ask VM {uuid} to shut down");
                Err(HypervisorError::new(HypervisorErrorKind::AgentSilent, attempt, "it is paused"))
            }
            PowerState::Running if !self.faults.has_no_effect(SimulatedCall::RequestShutdown) => {
                self.go_off(uuid, Some(true))
            }
            _ => Ok(()),
        }
    }

    async fn destroy(&self, uuid: &VmUuid) -> Result<(), HypervisorError> {
        self.faults.check(SimulatedCall::Destroy).await?;
        self.go_off(uuid, Some(false))
    }

    async fn undefine(&self, uuid: &VmUuid) -> Result<(), HypervisorError> {
        self.faults.check(SimulatedCall::Undefine).await?;
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

    async fn power(&self, uuid: &VmUuid) -> Result<PowerState, HypervisorError> {
        self.faults.check(SimulatedCall::Power).await?;
        Ok(self.known(uuid).map_or(PowerState::Missing, |vm| vm.power))
    }

    async fn went_off_in_order(&self, uuid: &VmUuid) -> Result<Option<bool>, HypervisorError> {
        self.faults.check(SimulatedCall::WentOffInOrder).await?;
        Ok(self.known(uuid).ok().and_then(|vm| vm.off_in_order))
    }

    async fn address(&self, uuid: &VmUuid, _: &MacAddress) -> Result<Option<IpAddr>, HypervisorError> {
        self.faults.check(SimulatedCall::Address).await?;
        let vm = self.known(uuid)?;
        Ok((vm.power.is_on() && !self.faults.has_no_effect(SimulatedCall::Address)).then_some(vm.address))
    }

    async fn agent_answers(&self, uuid: &VmUuid) -> Result<bool, HypervisorError> {
        self.faults.check(SimulatedCall::AgentAnswers).await?;
        Ok(self.known(uuid)?.power == PowerState::Running
            && !self.faults.has_no_effect(SimulatedCall::AgentAnswers))
    }

    async fn freeze(&self, uuid: &VmUuid) -> Result<(), HypervisorError> {
        self.faults.check(SimulatedCall::Freeze).await?;
        if self.faults.has_no_effect(SimulatedCall::Freeze) || self.known(uuid)?.power != PowerState::Running
        {
            let attempt = format!("freeze VM {uuid}");
            return Err(HypervisorError::new(HypervisorErrorKind::AgentSilent, attempt, "no agent answers"));
        }
        self.state().frozen.insert(uuid.clone());
        Ok(())
    }

    async fn thaw(&self, uuid: &VmUuid) -> Result<(), HypervisorError> {
        self.faults.check(SimulatedCall::Thaw).await?;
        self.state().frozen.remove(uuid);
        Ok(())
    }

    async fn open_exports(
        &self,
        uuid: &VmUuid,
        disks: &[Disk],
        folder: &Path,
    ) -> Result<Vec<Export>, HypervisorError> {
        self.faults.check(SimulatedCall::OpenExports).await?;
        self.known_on(uuid, "export the disks of")?;
        let attempt = format!("export the disks of VM {uuid}");
        let mut exports = Vec::new();
        for disk in disks {
            let socket = folder.join(format!("{}.sock", disk.name));
            serve_disk(disk, &socket).await.map_err(|error| failed(attempt.clone(), error))?;
            exports.push(Export { disk: disk.name.clone(), name: disk.name.to_string(), socket });
        }
        Ok(exports)
    }

    async fn close_exports(&self, uuid: &VmUuid, folder: &Path) -> Result<(), HypervisorError> {
        self.faults.check(SimulatedCall::CloseExports).await?;
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
        self.faults.check(SimulatedCall::Marked).await?;
        let state = self.state();
        let ours = state.vms.values().filter(|vm| vm.spec.mark.realm == *realm);
        let marked = ours.map(|vm| MarkedVm {
            uuid: vm.spec.uuid.clone(),
            power: vm.power,
            mark: vm.spec.mark.clone(),
            disks: found_disks(vm),
        });
        Ok(marked.collect())
    }
}

fn found_disks(vm: &SimulatedVm) -> Vec<FoundDisk> {
    let found = |disk: &Disk| FoundDisk { name: disk.name.to_string(), path: Some(disk.image.path.clone()) };
    vm.spec.disks.iter().map(found).collect()
}
