//! A provisioner without a hypervisor, honest to the contract: doors are leased to one operation, names are
//! reserved, adopting and removing are operations that can be watched and cancelled. It stalls and forgets on
//! request.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bus::{Bus, Declined, ServiceInfo, RunningServer};
use contract::operation::{
    Begun, CancelOperation, GetOperation, OperationReport, OperationState, UnknownOperation,
};
use contract::provisioner::*;
use contract::{ByteCount, DiskName, OperationId, SeedName, Service, VmName};

use super::host;

/// Its state, for tests to look at and to change.
#[derive(Default)]
pub struct State {
    /// Machines: each with its definition and the doors that it has when opened.
    pub vms: BTreeMap<VmName, (VmDefinition, Vec<DiskExport>)>,
    /// Doors that stand open.
    pub open: BTreeMap<OperationId, VmName>,
    /// How often doors were opened at a new moment.
    pub moments: usize,
    /// Reserved names.
    pub reserved: BTreeMap<VmName, (OperationId, ReservedVm, VmDefinition)>,
    /// Operations of its own.
    pub operations: BTreeMap<OperationId, OperationReport>,
    /// Adopting does not end by itself.
    pub adopting_stalls: bool,
    /// The lease that it gives.
    pub lease_seconds: u32,
    /// Adoptions under way: which machine each makes.
    adopting: BTreeMap<OperationId, VmName>,
}

/// A handle on it.
#[derive(Clone)]
pub struct FakeProvisioner {
    state: Arc<Mutex<State>>,
    folder: PathBuf,
}

/// A small machine.
pub fn definition(name: &VmName) -> VmDefinition {
    VmDefinition {
        name: name.clone(),
        seed: SeedName::new("debian-12").expect("a name"),
        cpu_count: 1,
        ram_size: ByteCount::mib(256),
        disk_size: ByteCount::mib(64),
        domains: Vec::new(),
        env: BTreeMap::new(),
        install: Vec::new(),
    }
}

impl FakeProvisioner {
    /// Opens its desk; disks of restored machines lie in `folder`.
    pub async fn open(bus: &Bus, folder: &Path) -> (FakeProvisioner, Serving) {
        let this = FakeProvisioner {
            state: Arc::new(Mutex::new(State { lease_seconds: 90, ..State::default() })),
            folder: folder.into(),
        };
        let mut server = bus.server(ServiceInfo {
            service: Service::Provisioner,
            version: "0.1.0".into(),
            metadata: Default::default(),
        });
        macro_rules! on {
            ($request:ty, $method:ident) => {{
                let this = this.clone();
                server.on::<$request, _, _>(move |asked| {
                    let answer = this.$method(asked.request);
                    async move { answer.map_err(Declined::Refused) }
                });
            }};
        }
        on!(GetVm, get_vm);
        on!(OpenDisks, open_disks);
        on!(RenewDisks, renew_disks);
        on!(CloseDisks, close_disks);
        on!(ReserveVm, reserve_vm);
        on!(ReleaseVm, release_vm);
        on!(AdoptVm, adopt_vm);
        on!(RemoveVm, remove_vm);
        on!(GetOperation, get_operation);
        on!(CancelOperation, cancel_operation);
        (this, server.open().await.expect("opens"))
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the lock")
    }

    /// A machine whose one disk is behind a door.
    pub fn add_vm(&self, name: &VmName, door: DiskExport) {
        self.state().vms.insert(name.clone(), (definition(name), vec![door]));
    }

    /// A machine whose one disk is a raw image, behind a door that is the image itself.
    pub fn add_raw_vm(&self, name: &VmName, image: &Path) {
        let size = std::fs::metadata(image).expect("there").len();
        self.add_vm(
            name,
            DiskExport {
                disk: DiskName::new("vda").expect("a name"),
                size: ByteCount(size),
                socket: image.into(),
                export: "vda".into(),
            },
        );
    }

    /// Forgets every lease, as a provisioner does that was started again.
    pub fn forget_doors(&self) {
        self.state().open.clear();
    }

    /// Lets stalled adoptions end.
    pub fn go_on(&self) {
        let mut state = self.state();
        state.adopting_stalls = false;
        for (id, vm) in std::mem::take(&mut state.adopting) {
            finish_adoption(&mut state, &id, &vm);
        }
    }

    fn get_vm(&self, asked: GetVm) -> Result<Vm, VmRefused> {
        let state = self.state();
        let (definition, _) = state.vms.get(&asked.vm).ok_or(VmRefused::Unknown(asked.vm))?;
        Ok(Vm {
            definition: definition.clone(),
            uuid: "6e9e8a4e-5c4c-4a39-b9c1-30a1d6a4d0f5".into(),
            mac: "52:54:00:00:00:01".into(),
            host: host(),
            state: VmState::Ready,
            address: None,
            locked_by: None,
            created: chrono::Utc::now(),
            hypervisor: "simulated".into(),
        })
    }

    fn open_disks(&self, asked: OpenDisks) -> Result<OpenedDisks, OpenDisksRefused> {
        let mut state = self.state();
        let Some((definition, doors)) = state.vms.get(&asked.vm).cloned() else {
            return Err(OpenDisksRefused::Unknown(asked.vm));
        };
        let other = state.open.iter().find(|(id, vm)| **vm == asked.vm && **id != asked.operation_id);
        if let Some((by, _)) = other {
            return Err(OpenDisksRefused::Busy { vm: asked.vm.clone(), by: by.clone() });
        }
        if state.open.insert(asked.operation_id, asked.vm).is_none() {
            state.moments += 1;
        }
        Ok(OpenedDisks {
            host: host(),
            doors,
            definition,
            consistency: Consistency::Filesystem,
            lease_seconds: state.lease_seconds,
        })
    }

    fn renew_disks(&self, asked: RenewDisks) -> Result<Renewed, NotOpen> {
        let state = self.state();
        match state.open.contains_key(&asked.operation_id) {
            true => Ok(Renewed { lease_seconds: state.lease_seconds }),
            false => Err(NotOpen { operation_id: asked.operation_id }),
        }
    }

    fn close_disks(&self, asked: CloseDisks) -> Result<Closed, contract::Nothing> {
        let stood_open = self.state().open.remove(&asked.operation_id).is_some();
        Ok(Closed { stood_open })
    }

    fn reserve_vm(&self, asked: ReserveVm) -> Result<ReservedVm, CreateVmRefused> {
        let mut state = self.state();
        let name = asked.definition.name.clone();
        match state.reserved.get(&name) {
            Some((by, reserved, _)) if *by == asked.operation_id => return Ok(reserved.clone()),
            Some(_) => return Err(CreateVmRefused::NameTaken(name)),
            None if state.vms.contains_key(&name) => return Err(CreateVmRefused::NameTaken(name)),
            None => {}
        }
        let place = |disk: &DiskSize| DiskPlace {
            disk: disk.disk.clone(),
            path: self.folder.join(format!("{name}-{}.raw", disk.disk)),
        };
        let reserved = ReservedVm { host: host(), disks: asked.disks.iter().map(place).collect() };
        let row = (asked.operation_id, reserved.clone(), asked.definition);
        state.reserved.insert(name, row);
        Ok(reserved)
    }

    fn release_vm(&self, asked: ReleaseVm) -> Result<Released, contract::Nothing> {
        let mut state = self.state();
        let ours = state.reserved.get(&asked.vm).is_some_and(|(by, ..)| *by == asked.operation_id);
        if ours && let Some((_, reserved, _)) = state.reserved.remove(&asked.vm) {
            for place in reserved.disks {
                // It may never have been written.
                let _ = std::fs::remove_file(place.path);
            }
        }
        Ok(Released { was_reserved: ours })
    }

    fn adopt_vm(&self, asked: AdoptVm) -> Result<Begun, AdoptVmRefused> {
        let mut state = self.state();
        if state.operations.contains_key(&asked.operation_id) {
            return Ok(Begun::AlreadyBegun(asked.operation_id));
        }
        match state.reserved.get(&asked.vm) {
            Some((by, reserved, _)) if *by == asked.reserved_by => {
                if let Some(missing) = reserved.disks.iter().find(|place| !place.path.exists()) {
                    return Err(AdoptVmRefused::DiskMissing(missing.disk.clone()));
                }
            }
            _ => {
                return Err(AdoptVmRefused::NotReserved { vm: asked.vm, reserved_by: asked.reserved_by });
            }
        }
        let (id, vm) = (asked.operation_id, asked.vm);
        state.operations.insert(id.clone(), report(&id, "adopt_vm", &vm));
        if state.adopting_stalls {
            state.adopting.insert(id.clone(), vm);
        } else {
            finish_adoption(&mut state, &id, &vm);
        }
        Ok(Begun::Begun(id))
    }

    fn remove_vm(&self, asked: RemoveVm) -> Result<Begun, VmRefused> {
        let mut state = self.state();
        let id = asked.operation_id.expect("the service gives an id");
        if state.operations.contains_key(&id) {
            return Ok(Begun::AlreadyBegun(id));
        }
        let (_, doors) = state.vms.remove(&asked.vm).ok_or(VmRefused::Unknown(asked.vm.clone()))?;
        for door in doors {
            std::fs::remove_file(door.socket).expect("it had a disk");
        }
        let done = OperationReport { state: OperationState::Done, ..report(&id, "remove_vm", &asked.vm) };
        state.operations.insert(id.clone(), done);
        Ok(Begun::Begun(id))
    }

    fn get_operation(&self, asked: GetOperation) -> Result<OperationReport, UnknownOperation> {
        let state = self.state();
        state.operations.get(&asked.id).cloned().ok_or(UnknownOperation { id: asked.id })
    }

    fn cancel_operation(&self, asked: CancelOperation) -> Result<OperationReport, UnknownOperation> {
        let mut state = self.state();
        // An adoption that is given up leaves the reservation as it was.
        let was_adopting = state.adopting.remove(&asked.id).is_some();
        let report = state.operations.get_mut(&asked.id).ok_or(UnknownOperation { id: asked.id })?;
        if was_adopting {
            report.state = OperationState::Undone;
            report.reason = Some("cancelled".into());
        }
        Ok(report.clone())
    }
}

fn finish_adoption(state: &mut State, id: &OperationId, vm: &VmName) {
    let (_, reserved, definition) = state.reserved.remove(vm).expect("it was reserved");
    let door = |place: &DiskPlace| DiskExport {
        disk: place.disk.clone(),
        size: ByteCount(std::fs::metadata(&place.path).expect("written").len()),
        socket: place.path.clone(),
        export: place.disk.to_string(),
    };
    let doors = reserved.disks.iter().map(door).collect();
    state.vms.insert(vm.clone(), (definition, doors));
    let report = state.operations.get_mut(id).expect("it was begun");
    report.state = OperationState::Done;
}

fn report(id: &OperationId, kind: &str, vm: &VmName) -> OperationReport {
    OperationReport {
        id: id.clone(),
        service: Service::Provisioner,
        kind: kind.into(),
        about: vm.to_string(),
        state: OperationState::Running,
        step: None,
        steps_done: 0,
        steps_total: 1,
        progress: None,
        reason: None,
        output: None,
        begun: chrono::Utc::now(),
        moved: chrono::Utc::now(),
        trace_id: None,
    }
}
