//! Things die in the middle; the installation ends done or as before, and nothing is left lying about.

use std::path::Path;
use std::time::Duration;

use contract::backup::StartBackup;
use contract::operation::OperationState;
use contract::provisioner::{CreateVm, ListVms, VmState};
use contract::{OperationId, Service, VmName};
use system_tests::{Installation, image};
use testkit::{eventually, eventually_some};

use crate::backup_restore::{backups, web};
use crate::provision::create_web;

fn id(number: u128) -> OperationId {
    OperationId::from_parts(1_800_000_000_000, number)
}

/// Whatever the provisioner left on disk for a machine.
fn traces_of(state: &Path, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["vms", "exports"] {
        let Ok(entries) = std::fs::read_dir(state.join(folder)) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            let text = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if text.contains(name) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provisioner_killed_in_the_middle_of_a_creation_finishes_it_or_leaves_nothing() {
    let installation = Installation::simulated().await;
    create_web(&installation).await;
    let pattern = installation.ask(ListVms {}).await.remove(0).definition;
    // Killed after ever longer whiles, the process dies at different steps.
    for (round, wait_ms) in [0u64, 20, 60, 120, 250, 500].into_iter().enumerate() {
        let name = VmName::new(format!("vm{round}")).expect("valid");
        let mut definition = pattern.clone();
        definition.name = name.clone();
        definition.domains.clear();
        let operation = id(1000 + round as u128);
        installation
            .ask(CreateVm {
                definition,
                host: None,
                overcommit: false,
                operation_id: Some(operation.clone()),
            })
            .await;
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        installation.kill(Service::Provisioner).await;
        let report = installation.end_of(Service::Provisioner, &operation).await;
        let vms = installation.ask(ListVms {}).await;
        let found = vms.iter().find(|vm| vm.definition.name == name);
        match report.state {
            OperationState::Done => {
                assert_eq!(found.map(|vm| vm.state), Some(VmState::Ready), "round {round}")
            }
            OperationState::Undone => {
                assert!(found.is_none(), "round {round}: {found:?}");
                assert!(traces_of(installation.state(), name.as_str()).is_empty(), "round {round}");
            }
            other => panic!("round {round}: {other:?} {:?}", report.reason),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_whose_services_are_killed_in_the_middle_is_whole_or_does_not_exist() {
    let installation = Installation::simulated().await;
    create_web(&installation).await;
    let victims = [Service::Backup, Service::Provisioner, Service::Backup, Service::Provisioner];
    for (round, (victim, wait_ms)) in victims.into_iter().zip([10u64, 30, 120, 250]).enumerate() {
        let operation = id(2000 + round as u128);
        installation
            .ask(StartBackup { vm: web(), schedule: None, operation_id: Some(operation.clone()) })
            .await;
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        installation.kill(victim).await;
        let report = installation.end_of(Service::Backup, &operation).await;
        let committed =
            backups(&installation).await.iter().any(|backup| backup.id.as_str() == operation.as_str());
        match report.state {
            OperationState::Done => assert!(committed, "round {round}"),
            OperationState::Undone => assert!(!committed, "round {round}"),
            other => panic!("round {round}: {other:?} {:?}", report.reason),
        }
        if committed {
            installation.loam_json(&["backup", "verify", &format!("web@{operation}")]);
        }
        eventually("no export stands open", async || sockets(installation.state()) == 0).await;
    }
}

fn sockets(state: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(state.join("exports")) else { return 0 };
    entries.flatten().filter(|entry| entry.path().extension().is_some_and(|e| e == "sock")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_killed_in_the_middle_finishes_or_leaves_the_name_free() {
    let installation = Installation::simulated().await;
    create_web(&installation).await;
    installation.loam_json(&["backup", "run", "web"]);
    for (round, (victim, wait_ms)) in
        [(Service::Backup, 20u64), (Service::Provisioner, 60), (Service::Backup, 200)].into_iter().enumerate()
    {
        let name = VmName::new(format!("copy{round}")).expect("valid");
        let operation = id(3000 + round as u128);
        let command = contract::backup::RestoreBackupAsVm {
            backup: "web@latest".parse().expect("valid"),
            as_vm: name.clone(),
            host: None,
            overcommit: false,
            operation_id: Some(operation.clone()),
        };
        installation.ask(command).await;
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        installation.kill(victim).await;
        let report = installation.end_of(Service::Backup, &operation).await;
        let there = installation.ask(ListVms {}).await.iter().any(|vm| vm.definition.name == name);
        match report.state {
            OperationState::Done => assert!(there, "round {round}"),
            OperationState::Undone => {
                assert!(!there, "round {round}");
                assert!(traces_of(installation.state(), name.as_str()).is_empty(), "round {round}");
            }
            other => panic!("round {round}: {other:?} {:?}", report.reason),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_nats_server_is_waited_for_and_nothing_is_forgotten() {
    let installation = Installation::simulated().await;
    create_web(&installation).await;
    let operation = id(4000);
    installation.ask(StartBackup { vm: web(), schedule: None, operation_id: Some(operation.clone()) }).await;
    let pid =
        eventually_some("the server is found", testkit::WAIT_MAX, async || nats_pid(installation.state()))
            .await;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
        .expect("killed");
    installation.ready().await;
    let report = installation.end_of(Service::Backup, &operation).await;
    assert_eq!(report.state, OperationState::Done, "{:?}", report.reason);
    assert_eq!(installation.ask(ListVms {}).await.len(), 1);
}

/// The nats-server whose configuration lies in this state folder.
fn nats_pid(state: &Path) -> Option<i32> {
    let folder = state.display().to_string();
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).into_owned();
        (line.contains("nats-server") && line.contains(&folder)).then_some(pid)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_bus_the_command_says_so_soon_and_with_its_own_exit_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = std::process::Command::new(system_tests::binary("loam"))
        .args(["--state", &folder.path().display().to_string(), "vm", "list"])
        .output()
        .expect("loam runs");
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(!output.stderr.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_others_can_write_is_refused_at_the_start() {
    use std::os::unix::fs::PermissionsExt;
    let mut installation = Installation::simulated().await;
    assert!(installation.end().await.success());
    let key = installation.state().join("keys").join("backup.nk");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o666)).expect("ours");
    let output = installation.loam(&["up", "--hypervisor", "simulated"]);
    assert!(!output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("backup.nk") && stderr.contains("chmod"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_machines_are_created_at_once_and_both_come_up() {
    let installation = Installation::simulated().await;
    let image = image(installation.state(), 3);
    let path = image.path.display().to_string();
    installation.loam_json(&["seed", "add", "tiny", "--from", &path, "--sha256", &image.sha256]);
    for number in 0..2 {
        let script = "#!/bin/sh\n";
        let file = system_tests::definition_file(
            installation.state(),
            &format!("twin{number}"),
            "tiny",
            &format!("twin{number}.example"),
            script,
        );
        let output = installation.loam(&["vm", "create", &file.display().to_string(), "--detach"]);
        assert!(output.status.success(), "{output:?}");
    }
    eventually("both are ready", async || {
        let vms = installation.ask(ListVms {}).await;
        vms.len() == 2 && vms.iter().all(|vm| vm.state == VmState::Ready)
    })
    .await;
}
