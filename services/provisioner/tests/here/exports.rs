//! Exports to disks: for one operation, at one moment, until a lease runs out; and always closed in the end.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bus::CallError;
use contract::provisioner::{
    CloseDisks, Consistency, CreateReservedVm, CreateReservedVmRefused, CreateVmRefused, DiskExport,
    DiskSize, GetVm, NotOpen, OpenDisks, OpenDisksRefused, OpenedDisks, ReleaseVmName, RenewDisks,
    ReserveVmName, StartVm, StopVm, VmRefused, VmState,
};
use contract::{ByteCount, DiskName, OperationId};
use operation::new_id;
use provisioner::Limits;
use provisioner::adapters::simulated::{Fault, SimulatedCall};
use provisioner::ports::{GuestShutdownMethod, Hypervisor, HypervisorErrorKind};
use testkit::eventually;

use crate::support::{ANSWER, CallHere, Running, definition, limits, script, vm};

pub(crate) async fn with_web() -> Running {
    with_web_at(limits()).await
}

async fn with_web_at(limits: Limits) -> Running {
    let running = Running::start_with(limits).await;
    running.add_seed().await;
    let mut wanted = definition("web");
    wanted.install = vec![script("install.sh", "#!/bin/sh\n")];
    running.create(wanted).await;
    running
}

pub(crate) async fn open(
    running: &Running,
    operation: &OperationId,
) -> Result<OpenedDisks, CallError<OpenDisksRefused>> {
    let asked = OpenDisks { vm: vm("web"), operation_id: operation.clone() };
    running.bus.call_here(&asked, ANSWER).await
}

pub(crate) async fn close(running: &Running, operation: &OperationId) -> bool {
    let asked = CloseDisks { operation_id: operation.clone() };
    running.bus.call_here(&asked, ANSWER).await.expect("closed").was_open
}

async fn stop(running: &Running) {
    running.run(StopVm { vm: vm("web"), operation_id: None }).await;
}

fn read(export: &DiskExport, to: &Path) {
    let uri = format!("nbd+unix:///{}?socket={}", export.export_name, export.socket.display());
    let read = Command::new("qemu-img").args(["convert", "-f", "raw", "-O", "raw", &uri]).arg(to).status();
    assert!(read.expect("qemu-img").success());
}

fn nothing_is_open(running: &Running) {
    let exports = std::fs::read_dir(running.simulated.state.join("exports")).expect("a folder");
    assert_eq!(exports.count(), 0);
}

async fn locked_by(running: &Running) -> Option<OperationId> {
    let asked = GetVm { vm: vm("web") };
    running.bus.call(&asked, ANSWER).await.expect("it exists").locked_by
}

#[actix::test]
async fn the_same_operation_gets_the_same_exports_and_no_other_operation_any() {
    let running = with_web().await;
    let (one, two) = (new_id(), new_id());
    let opened = open(&running, &one).await.expect("opened");
    assert_eq!(
        (opened.consistency, opened.lease_seconds, opened.host.as_str()),
        (Consistency::Filesystem, 120, "h1")
    );
    assert_eq!(opened.exports[0].size, ByteCount::mib(64));
    assert_eq!(open(&running, &one).await.expect("the same"), opened);
    assert!(matches!(
        open(&running, &two).await,
        Err(CallError::Refused(OpenDisksRefused::Busy { by, .. })) if by == one
    ));
    let refused = running.bus.call(&StopVm { vm: vm("web"), operation_id: None }, ANSWER).await;
    assert!(
        matches!(refused, Err(CallError::Refused(VmRefused::Locked { by, .. })) if by == one),
        "a VM that is being read is not stopped"
    );
    let copy = running.folder.path().join("copy.raw");
    read(&opened.exports[0], &copy);
    assert_eq!(std::fs::metadata(&copy).expect("it exists").len(), 64 << 20);
    assert_eq!(&std::fs::read(&copy).expect("read")[..12], b"boot sector!");
    assert!(close(&running, &one).await);
    assert!(!close(&running, &one).await, "closing twice is a no-op");
    assert!(UnixStream::connect(&opened.exports[0].socket).is_err());
    assert_eq!(locked_by(&running).await, None);
    nothing_is_open(&running);
    open(&running, &two).await.expect("free again");
    close(&running, &two).await;
}

#[actix::test]
async fn a_vm_that_is_off_is_read_as_it_is() {
    let running = with_web().await;
    stop(&running).await;
    let operation = new_id();
    let opened = open(&running, &operation).await.expect("opened");
    assert_eq!(opened.consistency, Consistency::PoweredOff);
    read(&opened.exports[0], &running.folder.path().join("copy.raw"));
    assert!(close(&running, &operation).await);
    nothing_is_open(&running);
}

#[actix::test]
async fn the_disks_of_a_vm_that_did_not_shut_down_are_as_after_a_power_cut() {
    let running = with_web().await;
    let uuid = running.state.registry.vm(&vm("web")).await.expect("it exists").identity.uuid;
    let consistency = async |running: &Running| {
        let operation = new_id();
        let opened = open(running, &operation).await.expect("opened");
        assert!(close(running, &operation).await);
        opened.consistency
    };
    // The reconciler does not come in this test: the record says that it runs.
    running.simulated.hypervisor.destroy(&uuid).await.expect("ended by force");
    assert_eq!(consistency(&running).await, Consistency::Crash);
    running.run(StartVm { vm: vm("web"), operation_id: None }).await;
    running.simulated.hypervisor.cut_power(&uuid).expect("off");
    assert_eq!(consistency(&running).await, Consistency::Crash);
    running.run(StartVm { vm: vm("web"), operation_id: None }).await;
    let agent = GuestShutdownMethod::Agent;
    running.simulated.hypervisor.request_shutdown(&uuid, agent).await.expect("its guest shuts down");
    assert_eq!(consistency(&running).await, Consistency::PoweredOff);

    // Known even when the hypervisor has forgotten it: its host was started again.
    running.run(StartVm { vm: vm("web"), operation_id: None }).await;
    stop(&running).await;
    running.simulated.hypervisor.cut_power(&uuid).expect("still off");
    let running = running.restart().await;
    assert_eq!(consistency(&running).await, Consistency::PoweredOff);

    running.run(StartVm { vm: vm("web"), operation_id: None }).await;
    running.simulated.faults.set(SimulatedCall::RequestShutdown, Fault::GuestUnresponsive);
    stop(&running).await;
    assert_eq!(consistency(&running).await, Consistency::Crash, "it had to be ended by force");
}

#[actix::test]
async fn a_guest_is_thawed_whatever_happens() {
    let running = with_web().await;
    let uuid = running.state.registry.vm(&vm("web")).await.expect("it exists").identity.uuid;
    let simulated = &running.simulated;
    for (call, fault) in [
        (SimulatedCall::Freeze, Fault::Stall),
        (SimulatedCall::Freeze, Fault::GuestUnresponsive),
        (SimulatedCall::Freeze, Fault::Fail(1, HypervisorErrorKind::Unavailable)),
    ] {
        simulated.faults.set(call, fault.clone());
        let operation = new_id();
        let opened = open(&running, &operation).await.expect("opened all the same");
        assert_eq!(opened.consistency, Consistency::Crash, "{fault:?}");
        simulated.faults.clear(call);
        assert!(!simulated.hypervisor.is_frozen(&uuid), "{fault:?}");
        assert!(close(&running, &operation).await);
    }
    let broken = Fault::Fail(1, HypervisorErrorKind::Failed);
    simulated.faults.set(SimulatedCall::OpenExports, broken);
    let failed = open(&running, &new_id()).await.expect_err("it failed");
    assert!(failed.to_string().contains("a fault of the simulation"), "{failed}");
    assert!(!simulated.hypervisor.is_frozen(&uuid));
    assert_eq!(locked_by(&running).await, None);
    nothing_is_open(&running);
}

#[actix::test]
async fn a_lease_that_nobody_renews_expires() {
    let export_lease = Duration::from_secs(1);
    let running = with_web_at(Limits { export_lease, ..limits() }).await;
    let operation = new_id();
    let opened = open(&running, &operation).await.expect("opened");
    let renew = RenewDisks { operation_id: operation.clone() };
    let renewed = running.bus.call_here(&renew, ANSWER).await.expect("it goes on");
    assert_eq!(renewed.lease_seconds, 1);
    eventually("the exports are closed", async || locked_by(&running).await.is_none()).await;
    assert!(UnixStream::connect(&opened.exports[0].socket).is_err());
    let gone = running.bus.call_here(&renew, ANSWER).await.expect_err("closed");
    let not_open = NotOpen { operation_id: operation.clone() };
    assert_eq!(gone.to_string(), not_open.to_string());
    eventually("its row is gone", async || !close(&running, &operation).await).await;
    nothing_is_open(&running);
}

#[actix::test]
async fn an_export_outlives_the_provisioner_and_one_that_was_half_open_is_closed() {
    let running = with_web().await;
    let operation = new_id();
    let opened = open(&running, &operation).await.expect("opened");
    let running = running.restart().await;
    assert_eq!(open(&running, &operation).await.expect("still open"), opened);
    read(&opened.exports[0], &running.folder.path().join("copy.raw"));
    assert!(close(&running, &operation).await);

    // It dies while the guest is frozen: only the row shows that.
    running.simulated.faults.set(SimulatedCall::OpenExports, Fault::Stall);
    let half = new_id();
    let asked = OpenDisks { vm: vm("web"), operation_id: half.clone() };
    let bus = running.bus.clone();
    let asking = tokio::spawn(async move { bus.call_here(&asked, ANSWER).await.is_ok() });
    eventually("the disks are being exported", async || locked_by(&running).await.as_ref() == Some(&half))
        .await;
    asking.abort();
    let running = running.restart().await;
    eventually("it is closed", async || locked_by(&running).await.is_none()).await;
    eventually("its row is gone", async || !close(&running, &half).await).await;
    nothing_is_open(&running);
}

#[actix::test]
async fn an_export_whose_row_was_written_while_the_bus_went_away_is_opened_when_asked_again() {
    let running = with_web().await;
    let operation = new_id();
    running.transport.lose_answer_of(contract::bucket::DISK_EXPORTS.name);
    assert!(matches!(open(&running, &operation).await, Err(CallError::Failed(_))));
    eventually("it is opened", async || open(&running, &operation).await.is_ok()).await;
    assert!(close(&running, &operation).await);
    assert_eq!(locked_by(&running).await, None);
    nothing_is_open(&running);
}

#[actix::test]
async fn an_export_that_is_not_served_any_more_is_closed_and_can_be_opened_again() {
    let running = with_web().await;
    let operation = new_id();
    let opened = open(&running, &operation).await.expect("opened");
    let pid = std::fs::read_to_string(opened.exports[0].socket.with_extension("pid")).expect("a process id");
    let killed = Command::new("kill").args(["-KILL", pid.trim()]).status();
    assert!(killed.expect("kill").success());
    let renew = RenewDisks { operation_id: operation.clone() };
    eventually("it is not renewed", async || running.bus.call_here(&renew, ANSWER).await.is_err()).await;
    eventually("it is opened again", async || open(&running, &operation).await.is_ok()).await;
    read(&opened.exports[0], &running.folder.path().join("copy.raw"));
    close(&running, &operation).await;
}

#[actix::test]
async fn a_name_is_reserved_released_and_created() {
    let running = with_web().await;
    running.page("web").await;
    let restore = new_id();
    let mut copy = definition("web2");
    copy.domains.clear();
    let reserve = |by: &OperationId, copy: &contract::provisioner::VmDefinition| ReserveVmName {
        overcommit: false,
        definition: copy.clone(),
        disks: vec![DiskSize { disk: DiskName::new("vda").expect("a name"), size: ByteCount::mib(64) }],
        operation_id: by.clone(),
    };
    let reserved = running.bus.call_here(&reserve(&restore, &copy), ANSWER).await;
    let reserved = reserved.expect("reserved");
    let again = running.bus.call_here(&reserve(&restore, &copy), ANSWER).await;
    assert_eq!(again.expect("the same"), reserved);
    let other = running.bus.call_here(&reserve(&new_id(), &copy), ANSWER).await;
    assert!(matches!(other, Err(CallError::Refused(CreateVmRefused::NameTaken(_)))));

    let create = CreateReservedVm { vm: vm("web2"), reserved_by: restore.clone(), operation_id: None };
    let early = running.bus.call_here(&create, ANSWER).await.expect_err("no disk yet");
    assert!(matches!(early, CallError::Refused(CreateReservedVmRefused::DiskMissing(_))));
    let operation = new_id();
    let opened = open(&running, &operation).await.expect("opened");
    read(&opened.exports[0], &reserved.disks[0].path);
    close(&running, &operation).await;

    let foreign = CreateReservedVm { reserved_by: new_id(), ..create.clone() };
    let foreign = running.bus.call_here(&foreign, ANSWER).await.expect_err("not its own");
    assert!(matches!(foreign, CallError::Refused(CreateReservedVmRefused::NotReserved { .. })));
    running.run(create).await;
    let made = running.bus.call(&GetVm { vm: vm("web2") }, ANSWER).await.expect("it exists");
    assert_eq!(made.state, VmState::Ready);
    let hypervisor = &running.simulated.hypervisor;
    assert_eq!(hypervisor.renewed_name(&made.uuid), Some(vm("web2")), "the copy is another machine");

    let release = |name: &str, by: &OperationId| ReleaseVmName { vm: vm(name), operation_id: by.clone() };
    let kept = running.bus.call_here(&release("web2", &restore), ANSWER).await;
    assert!(!kept.expect("a no-op").was_reserved, "a created VM is not released");
    copy.name = vm("web3");
    let mine = new_id();
    let reserved = running.bus.call_here(&reserve(&mine, &copy), ANSWER).await;
    std::fs::write(&reserved.expect("reserved").disks[0].path, "half a disk").expect("written");
    let foreign = running.bus.call_here(&release("web3", &restore), ANSWER).await;
    assert!(!foreign.expect("a no-op").was_reserved);
    for was_reserved in [true, false] {
        let released = running.bus.call_here(&release("web3", &mine), ANSWER).await;
        assert_eq!(released.expect("a no-op").was_reserved, was_reserved);
    }
    assert!(!running.simulated.state.join("vms/web3").exists());
}
