//! Backups by hand and by schedule store only what changed, and a second VM is restored from the first backup; the
//! simulated hypervisor stands in for libvirt.

use contract::backup::{Backup, ListBackups, StartBackup};
use contract::provisioner::{GetVm, ListVms, VmState};
use contract::scheduler::ListSchedules;
use contract::{BackupId, Service, VmName};
use system_tests::{Installation, get};
use testkit::{eventually, eventually_some};

use crate::provision::create_web;

pub(crate) fn web() -> VmName {
    VmName::new("web").expect("valid")
}

pub(crate) async fn backups(installation: &Installation) -> Vec<Backup> {
    installation.ask(ListBackups { vm: Some(web()) }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_made_a_second_stores_nothing_new_and_a_second_vm_is_restored_from_it() {
    let installation = Installation::simulated().await;
    create_web(&installation).await;
    installation.loam_json(&["backup", "run", "web"]);
    let first = backups(&installation).await.remove(0);
    assert!(first.bytes_new.0 > 7 << 20, "{first:?}");

    installation.loam_json(&["backup", "run", "web"]);
    let second = backups(&installation).await.remove(0);
    assert_ne!(second.id, first.id);
    assert!(second.bytes_new.0 < 1 << 20, "{second:?}");
    installation.loam_json(&["backup", "verify", "web@latest"]);

    let reference = format!("web@{}", first.id);
    installation.loam_json(&["backup", "restore", &reference, "--as", "web2"]);
    let (old, new) =
        (installation.ask(GetVm { vm: web() }).await, installation.ask(GetVm { vm: name("web2") }).await);
    assert_eq!(new.state, VmState::Ready);
    assert_ne!((old.uuid, old.mac), (new.uuid, new.mac));
    assert_eq!(old.definition.seed, new.definition.seed);
    installation.loam_json(&["backup", "run", "web2"]);
    let copy = installation.ask(ListBackups { vm: Some(name("web2")) }).await.remove(0);
    assert!(copy.bytes_new.0 < 1 << 20, "the restored disk is the one that was backed up: {copy:?}");
}

fn name(text: &str) -> VmName {
    VmName::new(text).expect("valid")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_makes_backups_by_itself_until_it_is_removed() {
    let installation = Installation::simulated().await;
    create_web(&installation).await;
    installation.loam_json(&["schedule", "add", "often", "--cron", "*/2 * * * * *", "--backup", "web"]);
    eventually("two backups came by themselves", async || backups(&installation).await.len() >= 2).await;
    for backup in backups(&installation).await {
        assert_eq!(backup.schedule.as_ref().map(|id| id.as_str()), Some("often"));
    }
    let schedule = installation.ask(ListSchedules {}).await.remove(0);
    assert!(schedule.next.is_some() && schedule.last.is_some(), "{schedule:?}");
    installation.loam_json(&["schedule", "remove", "often"]);
    assert!(installation.ask(ListSchedules {}).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_command_twice_makes_one_backup() {
    let installation = Installation::simulated().await;
    create_web(&installation).await;
    let id = contract::OperationId::from_parts(1_800_000_000_000, 7);
    let command = StartBackup { vm: web(), schedule: None, operation_id: Some(id.clone()) };
    let first = installation.ask(command.clone()).await;
    assert_eq!(first.operation(), &id);
    installation.end_of(Service::Backup, &id).await;
    let again = installation.ask(command).await;
    assert_eq!(again, contract::operation::BegunOperation::AlreadyBegun(id.clone()));
    let all = backups(&installation).await;
    assert_eq!(all.iter().map(|backup| backup.id.clone()).collect::<Vec<_>>(), [BackupId::from(&id)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_backed_up_while_it_is_off_and_the_running_one_goes_on_serving() {
    let installation = Installation::simulated().await;
    create_web(&installation).await;
    let proxy = installation.proxy().await;
    eventually("the page is reached", async || {
        get(proxy, "web.example", "/").await.is_ok_and(|answer| answer.status == 200)
    })
    .await;
    installation.loam_json(&["backup", "run", "web"]);
    assert_eq!(get(proxy, "web.example", "/").await.expect("an answer").status, 200);
    installation.loam_json(&["vm", "stop", "web"]);
    installation.loam_json(&["backup", "run", "web"]);
    let off = eventually_some("the backup is listed", testkit::WAIT_MAX, async || {
        let all = backups(&installation).await;
        (all.len() == 2).then(|| all[0].clone())
    })
    .await;
    assert_eq!(off.consistency, contract::provisioner::Consistency::PoweredOff);
    assert_eq!(installation.ask(ListVms {}).await[0].state, VmState::Stopped);
}
