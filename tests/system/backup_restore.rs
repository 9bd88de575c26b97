//! A machine is guarded: backups by hand and by schedule store only what changed, and a second machine grows from
//! one.

use contract::backup::{Backup, ListBackups, StartBackup};
use contract::provisioner::{GetVm, ListVms, VmState};
use contract::scheduler::ListSchedules;
use contract::{BackupId, Service, VmName};
use system_tests::{World, get};
use testkit::{eventually, eventually_some};

use crate::provision::grow_web;

pub(crate) fn web() -> VmName {
    VmName::new("web").expect("valid")
}

pub(crate) async fn backups(world: &World) -> Vec<Backup> {
    world.ask(ListBackups { vm: Some(web()) }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_made_a_second_stores_nothing_new_and_a_second_machine_grows_from_it() {
    let world = World::simulated().await;
    grow_web(&world).await;
    world.loam_json(&["backup", "run", "web"]);
    let first = backups(&world).await.remove(0);
    assert!(first.bytes_new.0 > 7 << 20, "{first:?}");

    world.loam_json(&["backup", "run", "web"]);
    let second = backups(&world).await.remove(0);
    assert_ne!(second.id, first.id);
    assert!(second.bytes_new.0 < 1 << 20, "{second:?}");
    world.loam_json(&["backup", "verify", "web@latest"]);

    let reference = format!("web@{}", first.id);
    world.loam_json(&["backup", "restore", &reference, "--as", "web2"]);
    let (old, new) = (world.ask(GetVm { vm: web() }).await, world.ask(GetVm { vm: name("web2") }).await);
    assert_eq!(new.state, VmState::Ready);
    assert_ne!((old.uuid, old.mac), (new.uuid, new.mac));
    assert_eq!(old.definition.seed, new.definition.seed);
    world.loam_json(&["backup", "run", "web2"]);
    let copy = world.ask(ListBackups { vm: Some(name("web2")) }).await.remove(0);
    assert!(copy.bytes_new.0 < 1 << 20, "the restored disk is the one that was backed up: {copy:?}");
}

fn name(text: &str) -> VmName {
    VmName::new(text).expect("valid")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_makes_backups_without_a_person_until_it_is_removed() {
    let world = World::simulated().await;
    grow_web(&world).await;
    world.loam_json(&["schedule", "add", "often", "--cron", "*/2 * * * * *", "--backup", "web"]);
    eventually("two backups came by themselves", async || backups(&world).await.len() >= 2).await;
    for backup in backups(&world).await {
        assert_eq!(backup.schedule.as_ref().map(|id| id.as_str()), Some("often"));
    }
    let schedule = world.ask(ListSchedules {}).await.remove(0);
    assert!(schedule.next.is_some() && schedule.last.is_some(), "{schedule:?}");
    world.loam_json(&["schedule", "remove", "often"]);
    assert!(world.ask(ListSchedules {}).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_command_twice_makes_one_backup() {
    let world = World::simulated().await;
    grow_web(&world).await;
    let id = contract::OperationId::from_parts(1_800_000_000_000, 7);
    let command = StartBackup { vm: web(), schedule: None, operation_id: Some(id.clone()) };
    let first = world.ask(command.clone()).await;
    assert_eq!(first.operation(), &id);
    world.end_of(Service::Backup, &id).await;
    let again = world.ask(command).await;
    assert_eq!(again, contract::operation::Begun::AlreadyBegun(id.clone()));
    let all = backups(&world).await;
    assert_eq!(all.iter().map(|backup| backup.id.clone()).collect::<Vec<_>>(), [BackupId::from(&id)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_backed_up_while_it_is_off_and_the_running_one_goes_on_serving() {
    let world = World::simulated().await;
    grow_web(&world).await;
    let proxy = world.proxy().await;
    eventually("the page is reached", async || {
        get(proxy, "web.example", "/").await.is_ok_and(|answer| answer.status == 200)
    })
    .await;
    world.loam_json(&["backup", "run", "web"]);
    assert_eq!(get(proxy, "web.example", "/").await.expect("an answer").status, 200);
    world.loam_json(&["vm", "stop", "web"]);
    world.loam_json(&["backup", "run", "web"]);
    let off = eventually_some("the backup is listed", testkit::PATIENCE, async || {
        let all = backups(&world).await;
        (all.len() == 2).then(|| all[0].clone())
    })
    .await;
    assert_eq!(off.consistency, contract::provisioner::Consistency::Off);
    assert_eq!(world.ask(ListVms {}).await[0].state, VmState::Stopped);
}
