//! Creates a VM from a seed and starts it. Its name is reserved first and freed last, so that everything in between
//! belongs to this operation alone.

use std::time::Duration;

use contract::provisioner::{CreateVm, VmDefinition};
use operation::{Saga, declined_error};
use provisioner_domain::nocloud::documents;
use provisioner_domain::{DiskSource, VmRecord};
use saga::{Outputs, Step, StepError};

use super::steps::{
    self, GUEST_RETRY, QUICK, READY_MAX, Ready, disk_error, guest_of, hypervisor_call, shell_error,
};
use crate::ports::{ScriptToRun, ShellError};
use crate::state::ServiceState;
use crate::vm_spec::{disks_of, nocloud_in};

/// How long one script may take. Compiling something in an emulated VM is the longest that is reasonable.
const SCRIPT_MAX: Duration = Duration::from_secs(3600);
/// All scripts together.
const INSTALL_MAX: Duration = Duration::from_secs(6 * 3600);

type Context = super::Context<CreateVm>;

impl Saga<ServiceState> for CreateVm {
    fn steps() -> Vec<Step<Context>> {
        vec![
            Step::new("lock", QUICK, reserve).undone_by(forget),
            Step::new("disk", QUICK, disk).undone_by(erase),
            hypervisor_call("define", steps::define).undone_by(steps::undefine),
            hypervisor_call("start", steps::start).undone_by(steps::destroy),
            Step::new("ready", READY_MAX, steps::ready),
            Step::new("install", INSTALL_MAX, install).retrying_for(GUEST_RETRY),
            Step::new("complete", QUICK, steps::complete).undone_by(steps::revert_complete),
        ]
    }
}

async fn reserve(context: &Context, _: &Outputs) -> Result<VmRecord, StepError> {
    let created = context.state.registry.create(context.command.definition.clone(), context.id.clone());
    created.await.map_err(declined_error)
}

async fn forget(context: &Context, _: &Outputs) -> Result<bool, StepError> {
    let forgotten = context.state.registry.forget(&context.command.definition.name, &context.id);
    forgotten.await.map_err(declined_error)
}

async fn disk(context: &Context, outputs: &Outputs) -> Result<(), StepError> {
    let record: VmRecord = outputs.get("lock")?;
    let DiskSource::Seed { sha256 } = &record.source else {
        return Err(StepError::Permanent("a new VM is created from a seed".into()));
    };
    let disks = &context.state.disks;
    disks.create_folder(record.name()).await.map_err(disk_error)?;
    let volume = documents(&record, context.state.shell.authorized_key());
    let path = nocloud_in(&disks.folder(record.name()));
    disks.write_nocloud(&path, &volume).await.map_err(disk_error)?;
    for disk in disks_of(&record, disks.as_ref()) {
        let size = record.definition.disk_size;
        disks.clone_seed(sha256, &disk.image.path, size).await.map_err(disk_error)?;
    }
    Ok(())
}

async fn erase(context: &Context, _: &Outputs) -> Result<(), StepError> {
    // Before the name is freed: until then the folder cannot be another VM's.
    match steps::own_record(context).await? {
        Some(record) => context.state.disks.erase(record.name()).await.map_err(disk_error),
        None => Ok(()),
    }
}

/// Runs the scripts. What they write is kept with the operation, and nowhere else.
async fn install(context: &Context, outputs: &Outputs) -> Result<(), StepError> {
    let (record, ready): (VmRecord, Ready) = (outputs.get("lock")?, outputs.get("ready")?);
    let mut guest = guest_of(&record, ready.address);
    guest.host_key = Some(ready.host_key);
    let VmDefinition { env, install, .. } = &context.command.definition;
    for (at, script) in install.iter().enumerate() {
        let run = ScriptToRun { at, script, env, timeout: SCRIPT_MAX };
        let ran = tokio::select! {
            ran = context.state.shell.run(&guest, &run) => ran,
            () = context.cancel.cancelled() => {
                return Err(StepError::Permanent(format!("cancelled while script {} ran", script.name)));
            }
        };
        if let Some(output) = output_of(&ran) {
            context.scripts.keep(&script.name, output.clone());
        }
        ran.map_err(shell_error)?;
    }
    // Once this step is recorded its scripts never run again, so what they wrote must outlive a power cut.
    context.state.shell.flush(&guest).await.map_err(shell_error)
}

/// What a script wrote last, whether it succeeded or not.
fn output_of(ran: &Result<String, ShellError>) -> Option<&String> {
    match ran {
        Ok(output)
        | Err(ShellError::ScriptFailed { output, .. } | ShellError::ScriptTimeout { output, .. }) => {
            Some(output)
        }
        Err(_) => None,
    }
}
