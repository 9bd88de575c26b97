//! A provisioner without a hypervisor that keeps the contract: disk exports are leased to one operation, names are
//! reserved, creating and removing are operations that can be watched and cancelled. It stalls and loses its leases on
//! request.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bus::{Bus, ErrorReply, RunningServer, ServiceInfo};
use contract::message::NeverRefused;
use contract::operation::{
    BegunOperation, CancelOperation, GetOperation, OperationReport, OperationState, UnknownOperation,
};
use contract::provisioner::*;
use contract::{ByteCount, DiskName, HostName, OperationId, SeedName, Service, Timestamp, VmName};

use super::{host, other_host};

/// Its state, for tests to inspect and to change.
#[derive(Default)]
pub struct State {
    /// VMs: each with its definition and the exports of its disks when they are opened.
    pub vms: BTreeMap<VmName, (VmDefinition, Vec<DiskExport>)>,
    /// The host of each VM that is not on ours.
    pub elsewhere: BTreeMap<VmName, HostName>,
    /// The hosts; ours alone where there is none.
    pub hosts: BTreeMap<HostName, HostState>,
    /// Exports that are open.
    pub open: BTreeMap<OperationId, VmName>,
    /// The points in time at which disks were opened, with the operation and how consistent they were.
    pub moments: Vec<(OperationId, Timestamp, Consistency)>,
    /// The next disks are opened without a frozen file system.
    pub agent_is_gone: bool,
    /// Reserved names.
    pub reserved: BTreeMap<VmName, (OperationId, ReservedVm, VmDefinition)>,
    /// Operations of its own.
    pub operations: BTreeMap<OperationId, OperationReport>,
    /// Creating a reserved VM does not end by itself.
    pub creating_stalls: bool,
    /// The lease that it gives.
    pub lease_seconds: u32,
    /// Creations under way, and the VM of each.
    creating: BTreeMap<OperationId, VmName>,
}

/// A handle on it.
#[derive(Clone)]
pub struct FakeProvisioner {
    state: Arc<Mutex<State>>,
    folder: PathBuf,
    host: HostName,
}

/// A small VM.
pub fn definition(name: &VmName) -> VmDefinition {
    VmDefinition {
        name: name.clone(),
        seed: SeedName::new("debian-12").expect("a valid name"),
        cpu_count: 1,
        ram_size: ByteCount::mib(256),
        disk_size: ByteCount::mib(64),
        domains: Vec::new(),
        env: BTreeMap::new(),
        install: Vec::new(),
    }
}

impl FakeProvisioner {
    /// Opens its endpoints; disks of restored VMs are in `folder`.
    pub async fn open(bus: &Bus, folder: &Path) -> (FakeProvisioner, RunningServer) {
        let this = FakeProvisioner {
            state: Arc::new(Mutex::new(State { lease_seconds: 90, ..State::default() })),
            folder: folder.into(),
            host: host(),
        };
        let mut server = bus.server(ServiceInfo {
            service: Service::Provisioner,
            version: "0.1.0".into(),
            metadata: Default::default(),
        });
        macro_rules! on {
            ($request:ty, $method:ident) => {{
                let this = this.clone();
                server.on::<$request, _, _>(move |call| {
                    let answer = this.$method(call.request);
                    async move { answer.map_err(ErrorReply::Refused) }
                });
            }};
        }
        // Of each host.
        macro_rules! at_hosts {
            ($request:ty, $method:ident) => {
                for host in [host(), other_host()] {
                    let this = FakeProvisioner { host: host.clone(), ..this.clone() };
                    server.on_host::<$request, _, _>(&host, move |call| {
                        let answer = this.$method(call.request);
                        async move { answer.map_err(ErrorReply::Refused) }
                    });
                }
            };
        }
        on!(ListHosts, list_hosts);
        on!(GetVm, get_vm);
        at_hosts!(OpenDisks, open_disks);
        at_hosts!(RenewDisks, renew_disks);
        at_hosts!(CloseDisks, close_disks);
        at_hosts!(ReserveVmName, reserve_vm_name);
        at_hosts!(ReleaseVmName, release_vm_name);
        at_hosts!(CreateReservedVm, create_reserved_vm);
        on!(RemoveVm, remove_vm);
        on!(GetOperation, get_operation);
        on!(CancelOperation, cancel_operation);
        (this, server.open().await.expect("the endpoints open"))
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the lock")
    }

    /// A VM with one disk, of this export.
    pub fn add_vm(&self, name: &VmName, export: DiskExport) {
        self.state().vms.insert(name.clone(), (definition(name), vec![export]));
    }

    /// A VM whose one disk is a raw image; the socket of its export is the image itself.
    pub fn add_raw_vm(&self, name: &VmName, image: &Path) {
        let size = std::fs::metadata(image).expect("the file exists").len();
        self.add_vm(
            name,
            DiskExport {
                disk: DiskName::new("vda").expect("a valid name"),
                size: ByteCount(size),
                socket: image.into(),
                export_name: "vda".into(),
            },
        );
    }

    /// Loses every lease, as a provisioner does that was started again.
    pub fn lose_exports(&self) {
        self.state().open.clear();
    }

    fn list_hosts(&self, _: ListHosts) -> Result<Vec<Host>, NeverRefused> {
        let host = |name: HostName, state| Host {
            name,
            state,
            last_seen: chrono::Utc::now(),
            cpus: None,
            memory: None,
            promised_memory: ByteCount(0),
            free_disk: None,
            vms: 0,
            unclaimed: Vec::new(),
            hypervisor: "simulated".into(),
            version: "0.1.0".into(),
        };
        Ok(self.state().hosts.iter().map(|(name, state)| host(name.clone(), *state)).collect())
    }

    fn get_vm(&self, request: GetVm) -> Result<Vm, VmRefused> {
        let state = self.state();
        let place = state.elsewhere.get(&request.vm).cloned().unwrap_or_else(host);
        let is_there = |(name, state): (&HostName, &HostState)| *name == place && *state == HostState::Ready;
        let state_of_vm = match state.hosts.is_empty() || state.hosts.iter().any(is_there) {
            true => VmState::Ready,
            false => VmState::Unreachable,
        };
        let (definition, _) = state.vms.get(&request.vm).ok_or(VmRefused::UnknownVm(request.vm))?;
        Ok(Vm {
            definition: definition.clone(),
            uuid: "6e9e8a4e-5c4c-4a39-b9c1-30a1d6a4d0f5".parse().expect("a UUID"),
            mac: "52:54:00:00:00:01".parse().expect("a MAC address"),
            pause_reason: None,
            problem: None,
            host: place,
            state: state_of_vm,
            address: None,
            locked_by: None,
            created: chrono::Utc::now(),
            hypervisor: "simulated".into(),
            variables: Vec::new(),
            scripts: Vec::new(),
            emulation_reason: None,
        })
    }

    fn open_disks(&self, request: OpenDisks) -> Result<OpenedDisks, OpenDisksRefused> {
        let mut state = self.state();
        let Some((definition, exports)) = state.vms.get(&request.vm).cloned() else {
            return Err(OpenDisksRefused::UnknownVm(request.vm));
        };
        let other = state.open.iter().find(|(id, vm)| **vm == request.vm && **id != request.operation_id);
        if let Some((by, _)) = other {
            return Err(OpenDisksRefused::Busy { vm: request.vm.clone(), by: by.clone() });
        }
        let consistency = if state.agent_is_gone { Consistency::Crash } else { Consistency::Filesystem };
        if state.open.insert(request.operation_id.clone(), request.vm).is_none() {
            state.moments.push((request.operation_id.clone(), chrono::Utc::now(), consistency));
        }
        let moment = state.moments.iter().rfind(|(id, ..)| *id == request.operation_id);
        let (_, opened_at, consistency) = moment.expect("it is open").clone();
        Ok(OpenedDisks {
            host: self.host.clone(),
            exports,
            definition,
            opened_at,
            consistency,
            lease_seconds: state.lease_seconds,
        })
    }

    fn renew_disks(&self, request: RenewDisks) -> Result<RenewedLease, NotOpen> {
        let state = self.state();
        match state.open.contains_key(&request.operation_id) {
            true => Ok(RenewedLease { lease_seconds: state.lease_seconds }),
            false => Err(NotOpen { operation_id: request.operation_id }),
        }
    }

    fn close_disks(&self, request: CloseDisks) -> Result<ClosedExports, NeverRefused> {
        let was_open = self.state().open.remove(&request.operation_id).is_some();
        Ok(ClosedExports { was_open })
    }

    fn reserve_vm_name(&self, request: ReserveVmName) -> Result<ReservedVm, CreateVmRefused> {
        let mut state = self.state();
        let name = request.definition.name.clone();
        match state.reserved.get(&name) {
            Some((by, reserved, _)) if *by == request.operation_id => return Ok(reserved.clone()),
            Some(_) => return Err(CreateVmRefused::NameTaken(name)),
            None if state.vms.contains_key(&name) => return Err(CreateVmRefused::NameTaken(name)),
            None => {}
        }
        let place = |disk: &DiskSize| DiskPath {
            disk: disk.disk.clone(),
            path: self.folder.join(format!("{name}-{}.raw", disk.disk)),
        };
        let reserved =
            ReservedVm { host: self.host.clone(), disks: request.disks.iter().map(place).collect() };
        let row = (request.operation_id, reserved.clone(), request.definition);
        state.reserved.insert(name, row);
        Ok(reserved)
    }

    fn release_vm_name(&self, request: ReleaseVmName) -> Result<ReleasedVmName, NeverRefused> {
        let mut state = self.state();
        let ours = state.reserved.get(&request.vm).is_some_and(|(by, ..)| *by == request.operation_id);
        if ours && let Some((_, reserved, _)) = state.reserved.remove(&request.vm) {
            for place in reserved.disks {
                // It may never have been written.
                let _ = std::fs::remove_file(place.path);
            }
        }
        Ok(ReleasedVmName { was_reserved: ours })
    }

    fn create_reserved_vm(
        &self,
        request: CreateReservedVm,
    ) -> Result<BegunOperation, CreateReservedVmRefused> {
        let mut state = self.state();
        let id = request.operation_id.expect("the service sends an id");
        if state.operations.contains_key(&id) {
            return Ok(BegunOperation::AlreadyBegun(id));
        }
        match state.reserved.get(&request.vm) {
            Some((by, reserved, _)) if *by == request.reserved_by => {
                if let Some(missing) = reserved.disks.iter().find(|place| !place.path.exists()) {
                    return Err(CreateReservedVmRefused::DiskMissing(missing.disk.clone()));
                }
            }
            _ => {
                return Err(CreateReservedVmRefused::NotReserved {
                    vm: request.vm,
                    reserved_by: request.reserved_by,
                });
            }
        }
        let vm = request.vm;
        state.operations.insert(id.clone(), report(&id, "create_reserved_vm", &vm));
        if state.creating_stalls {
            state.creating.insert(id.clone(), vm);
        } else {
            finish_creation(&mut state, &id, &vm);
        }
        Ok(BegunOperation::Begun(id))
    }

    fn remove_vm(&self, request: RemoveVm) -> Result<BegunOperation, VmRefused> {
        let mut state = self.state();
        let id = request.operation_id.expect("the service sends an id");
        if state.operations.contains_key(&id) {
            return Ok(BegunOperation::AlreadyBegun(id));
        }
        let (_, exports) = state.vms.remove(&request.vm).ok_or(VmRefused::UnknownVm(request.vm.clone()))?;
        for export in exports {
            std::fs::remove_file(export.socket).expect("it had a disk");
        }
        let done = OperationReport { state: OperationState::Done, ..report(&id, "remove_vm", &request.vm) };
        state.operations.insert(id.clone(), done);
        Ok(BegunOperation::Begun(id))
    }

    fn get_operation(&self, request: GetOperation) -> Result<OperationReport, UnknownOperation> {
        let state = self.state();
        state.operations.get(&request.id).cloned().ok_or(UnknownOperation { id: request.id })
    }

    fn cancel_operation(&self, request: CancelOperation) -> Result<OperationReport, UnknownOperation> {
        let mut state = self.state();
        // A creation that is cancelled leaves the reservation as it was.
        let was_creating = state.creating.remove(&request.id).is_some();
        let report = state.operations.get_mut(&request.id).ok_or(UnknownOperation { id: request.id })?;
        if was_creating {
            report.state = OperationState::Undone;
            report.reason = Some("cancelled".into());
        }
        Ok(report.clone())
    }
}

fn finish_creation(state: &mut State, id: &OperationId, vm: &VmName) {
    let (_, reserved, definition) = state.reserved.remove(vm).expect("it was reserved");
    let export = |place: &DiskPath| DiskExport {
        disk: place.disk.clone(),
        size: ByteCount(std::fs::metadata(&place.path).expect("the file is written").len()),
        socket: place.path.clone(),
        export_name: place.disk.to_string(),
    };
    let exports = reserved.disks.iter().map(export).collect();
    state.vms.insert(vm.clone(), (definition, exports));
    let report = state.operations.get_mut(id).expect("it was begun");
    report.state = OperationState::Done;
}

fn report(id: &OperationId, kind: &str, vm: &VmName) -> OperationReport {
    OperationReport {
        id: id.clone(),
        service: Service::Provisioner,
        host: contract::HostName::new("h1").expect("a name"),
        caller: bus::Caller::Service(Service::Backup),
        on_behalf_of: None,
        kind: kind.into(),
        about: vm.to_string(),
        state: OperationState::Running,
        step: None,
        steps_done: 0,
        steps_total: 1,
        progress: None,
        waiting_for: None,
        reason: None,
        output: None,
        started: chrono::Utc::now(),
        updated: chrono::Utc::now(),
        trace_id: None,
    }
}
