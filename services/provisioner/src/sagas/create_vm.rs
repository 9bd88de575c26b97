//! Makes a machine of a seed and starts it.
//!
//! It needs a definition that passed the registry's check. The name is reserved first and freed last, so that
//! everything in between belongs to this operation alone.

use std::time::Duration;

use contract::provisioner::VmDefinition;
use operation::{Context, Work};
use provisioner_domain::nocloud::documents;
use provisioner_domain::{DiskSource, Observed, VmTransition, VmRecord};
use saga::{Step, StepFuture, Trail, Trouble, output};

use super::machine::{disks_of, machine_of, nocloud_in};
use super::ready::{Ready, guest_of, wait_ready};
use super::{
    DEED, HYPERVISOR_PATIENCE, MOMENT, READY_LIMIT, ServiceState, of_disks, of_hypervisor, of_registry, own_record,
};
use crate::ports::{ScriptRun, ShellError};

/// How long one script may take. Compiling something on an emulated machine is the longest that is reasonable.
const SCRIPT_MAX: Duration = Duration::from_secs(3600);
/// All scripts together.
const INSTALL_LIMIT: Duration = Duration::from_secs(6 * 3600);

/// The saga.
pub struct CreateVmWork;

type Here = Context<ServiceState, VmDefinition>;

impl Work for CreateVmWork {
    const KIND: &'static str = "create_vm";
    type ServiceState = ServiceState;
    type Input = VmDefinition;

    fn about(definition: &VmDefinition) -> String {
        definition.name.to_string()
    }

    fn steps() -> Vec<Step<Here>> {
        vec![
            Step::new("reserve", MOMENT, reserve).undone_by(unreserve),
            Step::new("disk", MOMENT, disk).undone_by(erase),
            Step::new("define", DEED, define).undone_by(undefine).with_patience(HYPERVISOR_PATIENCE),
            Step::new("start", DEED, start).undone_by(destroy).with_patience(HYPERVISOR_PATIENCE),
            Step::new("ready", READY_LIMIT, ready),
            Step::new("install", INSTALL_LIMIT, install).with_patience(Duration::from_secs(120)),
            Step::new("finish", MOMENT, finish).undone_by(unfinish),
        ]
    }
}

fn reserve<'a>(here: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let created = here.state.registry.create(here.input.clone(), here.id.clone());
        output(&created.await.map_err(of_registry)?)
    })
}

fn unreserve<'a>(here: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let forgotten = here.state.registry.forget(&here.input.name, &here.id);
        output(&forgotten.await.map_err(of_registry)?)
    })
}

fn disk<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let record: VmRecord = trail.of("reserve")?;
        let DiskSource::Seed { sha256 } = &record.source else {
            return Err(Trouble::Final("a machine that is created grows from a seed".into()));
        };
        let disks = &here.state.disks;
        let name = record.name().as_str();
        disks.create_folder(name).await.map_err(of_disks)?;
        let volume = documents(&record, here.state.shell.authorized_key());
        disks.write_nocloud(&nocloud_in(&disks.folder(name)), &volume).await.map_err(of_disks)?;
        for disk in disks_of(&record, disks.as_ref()) {
            let size = record.definition.disk_size;
            disks.clone_seed(sha256, &disk.image.path, size).await.map_err(of_disks)?;
        }
        output(&())
    })
}

fn erase<'a>(here: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        // Before the name is freed: until then the folder cannot be anybody else's.
        if own_record(here, &here.input.name).await?.is_some() {
            let erased = here.state.disks.erase(here.input.name.as_str());
            erased.await.map_err(of_disks)?;
        }
        output(&())
    })
}

fn define<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let state = &here.state;
        let machine = machine_of(&trail.of("reserve")?, &state.realm, &here.id, state.disks.as_ref());
        state.hypervisor.define(&machine).await.map_err(of_hypervisor)?;
        output(&())
    })
}

fn undefine<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        if let Some(record) = trail.if_done::<VmRecord>("reserve") {
            let (hypervisor, uuid) = (&here.state.hypervisor, &record.identity.uuid);
            hypervisor.destroy(uuid).await.map_err(of_hypervisor)?;
            hypervisor.undefine(uuid).await.map_err(of_hypervisor)?;
        }
        output(&())
    })
}

fn start<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let record: VmRecord = trail.of("reserve")?;
        let started = here.state.hypervisor.start(&record.identity.uuid);
        started.await.map_err(of_hypervisor)?;
        output(&())
    })
}

fn destroy<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        if let Some(record) = trail.if_done::<VmRecord>("reserve") {
            let destroyed = here.state.hypervisor.destroy(&record.identity.uuid);
            destroyed.await.map_err(of_hypervisor)?;
        }
        output(&())
    })
}

fn ready<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let record: VmRecord = trail.of("reserve")?;
        output(&wait_ready(&here.state, &record, &here.cancel).await?)
    })
}

fn install<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let record: VmRecord = trail.of("reserve")?;
        let ready: Ready = trail.of("ready")?;
        let mut guest = guest_of(&record, ready.address);
        guest.host_key = Some(ready.host_key);
        let scripts = &record.definition.install;
        for (at, script) in scripts.iter().enumerate() {
            let run = ScriptRun { at, script, env: &record.definition.env, within: SCRIPT_MAX };
            let ran = tokio::select! {
                ran = here.state.shell.run(&guest, &run) => ran,
                () = here.cancel.cancelled() => {
                    return Err(Trouble::Final(format!("given up while script {} ran", script.name)));
                }
            };
            ran.map_err(of_shell)?;
        }
        output(&scripts.len())
    })
}

fn of_shell(error: ShellError) -> Trouble {
    match error {
        ShellError::Unreachable(reason) => Trouble::Passing(reason),
        other => Trouble::Final(other.to_string()),
    }
}

fn finish<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let ready: Ready = trail.of("ready")?;
        output(&settle_ready(here, &here.input.name, ready).await?)
    })
}

/// Writes down that a machine answers; the machine as others see it.
pub(super) async fn settle_ready<I>(
    here: &Context<ServiceState, I>,
    vm: &contract::VmName,
    ready: Ready,
) -> Result<contract::provisioner::Vm, Trouble> {
    let registry = &here.state.registry;
    let seen = Observed::Running { ready: true, address: Some(ready.address) };
    registry.make(vm, VmTransition::KnowHostKey(ready.host_key)).await.map_err(of_registry)?;
    let settled = registry.make(vm, VmTransition::Settle(here.id.clone(), seen));
    let settled = settled.await.map_err(of_registry)?;
    Ok(settled.outline(here.state.hypervisor.name()))
}

fn unfinish<'a>(here: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        if own_record(here, &here.input.name).await?.is_some() {
            let unmade = VmTransition::Unmake(here.id.clone(), None);
            let unmade = here.state.registry.make(&here.input.name, unmade);
            unmade.await.map_err(of_registry)?;
        }
        output(&())
    })
}
