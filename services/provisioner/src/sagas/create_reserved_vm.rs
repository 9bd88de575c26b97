//! Creates a VM from a reserved name whose disks a restore has written. Its scripts ran long ago and do not run again.
//! It gets an identity other than that of the VM it is a copy of: from its NoCloud volume (SSH host keys, host name), and
//! in its first boot what cloud-init leaves (machine id, random seed, the old name in `/etc/hosts`).

use contract::provisioner::CreateReservedVm;
use operation::Saga;
use provisioner_domain::nocloud::documents;
use provisioner_domain::{VmRecord, VmTransition};
use saga::{Outputs, Step, StepError};

use super::steps::{
    self, GUEST_RETRY, QUICK, READY_MAX, Ready, disk_error, guest_of, hypervisor_call, shell_error,
};
use crate::state::ServiceState;
use crate::vm_spec::{disks_of, nocloud_in};

type Context = super::Context<CreateReservedVm>;

impl Saga<ServiceState> for CreateReservedVm {
    fn steps() -> Vec<Step<Context>> {
        vec![
            Step::new("lock", QUICK, begin_reserved).undone_by(revert_begin_reserved),
            // It needs no undo: the volume is among the disks, and is removed with them.
            Step::new("volume", QUICK, volume),
            hypervisor_call("define", steps::define).undone_by(steps::undefine),
            hypervisor_call("start", steps::start).undone_by(steps::destroy),
            Step::new("ready", READY_MAX, steps::ready),
            Step::new("identity", QUICK * 6, identity).retrying_for(GUEST_RETRY),
            Step::new("complete", QUICK, steps::complete).undone_by(steps::revert_complete),
        ]
    }
}

async fn begin_reserved(context: &Context, _: &Outputs) -> Result<VmRecord, StepError> {
    let (by, reserved_by) = (context.id.clone(), context.command.reserved_by.clone());
    let record = steps::apply(context, VmTransition::BeginReserved { by, reserved_by }).await?;
    let disks = &context.state.disks;
    for disk in disks_of(&record, disks.as_ref()) {
        if !disks.take_restored(record.name(), &disk.image.path).await.map_err(disk_error)? {
            return Err(StepError::Permanent(format!("disk {} has not been written", disk.name)));
        }
    }
    disks.end_restore_folder(record.name()).await.map_err(disk_error)?;
    Ok(record)
}

async fn revert_begin_reserved(context: &Context, _: &Outputs) -> Result<(), StepError> {
    if steps::own_record(context).await?.is_some() {
        steps::apply(context, VmTransition::RevertBeginReserved { by: context.id.clone() }).await?;
    }
    Ok(())
}

async fn volume(context: &Context, outputs: &Outputs) -> Result<(), StepError> {
    let record: VmRecord = outputs.get("lock")?;
    let disks = &context.state.disks;
    let path = nocloud_in(&disks.folder(record.name()));
    let documents = documents(&record, context.state.shell.authorized_key());
    disks.write_nocloud(&path, &documents).await.map_err(disk_error)
}

async fn identity(context: &Context, outputs: &Outputs) -> Result<(), StepError> {
    let (record, ready): (VmRecord, Ready) = (outputs.get("lock")?, outputs.get("ready")?);
    let mut guest = guest_of(&record, ready.address);
    guest.host_key = Some(ready.host_key);
    context.state.shell.renew_identity(&guest, record.name()).await.map_err(shell_error)
}
