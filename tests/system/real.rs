//! The whole loop on real parts: libvirt, QEMU under software emulation, a guest that boots. Runs inside
//! `tests/harness/realm`, which gives it a libvirtd and a tiny guest of its own.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use std::time::Duration;

use contract::backup::{RestoreBackupAsVm, StartBackup};
use contract::health::CheckHealth;
use contract::operation::OperationState;
use contract::provisioner::{CreateVm, ListVms, VmState};
use contract::{OperationId, Service, VmName};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use system_tests::{CALL_MAX, Installation, InstallationOptions, definition_file, get};
use testkit::{eventually, eventually_some};

use crate::backup_restore::{backups, web};

/// A guest under emulation, on a machine that does other work too.
const GUEST_MAX: Duration = Duration::from_secs(240);

/// The realm's guest. Outside a realm there is nothing to run on, and the runner never gets here.
fn guest() -> String {
    std::env::var("LOAM_TEST_GUEST").expect("run inside tests/harness/realm, as tests/run does")
}

async fn installation() -> Installation {
    // The realm has no working KVM.
    let settings = "[provisioner]\nvirt_type = \"qemu\"\n".to_string();
    Installation::start(InstallationOptions { settings, libvirt: true, ..InstallationOptions::default() })
        .await
}

fn virsh(arguments: &[&str]) -> String {
    let output: Output = Command::new("virsh")
        .args(["-q", "-c", "qemu:///system"])
        .args(arguments)
        .output()
        .expect("virsh runs");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The domains that libvirt knows.
fn domains() -> Vec<String> {
    virsh(&["list", "--all", "--name"])
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .map(str::to_string)
        .collect()
}

const SERVE: &str = "#!/bin/sh\n\
    mkdir -p /srv/www && echo \"$GREETING from $(hostname)\" > /srv/www/index.html\n\
    printf '#!/bin/sh\\nhttpd -h /srv/www\\n' > /etc/rc.local && chmod 755 /etc/rc.local && sh /etc/rc.local\n";

fn create(installation: &Installation) {
    let digest = Command::new("sha256sum").arg(guest()).output().expect("coreutils").stdout;
    let digest = String::from_utf8(digest).expect("text");
    let digest = digest.split_whitespace().next().expect("a digest");
    installation.loam_json(&["seed", "add", "tiny", "--from", &guest(), "--sha256", digest]);
    let file = definition_file(installation.state(), "web", "tiny", "web.example", SERVE);
    installation.loam_json(&["vm", "create", &file.display().to_string()]);
}

/// What a command prints that `loam vm ssh` runs in a VM.
fn over_ssh(installation: &Installation, vm: &str, command: &[&str]) -> String {
    let output = installation.loam(&[&["vm", "ssh", vm, "--"], command].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_is_done_from_seed_to_second_machine() {
    let installation = installation().await;
    let output = installation.loam(&["demo", "--seed", &guest()]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    eventually("nothing of it is left at the hypervisor", async || domains().is_empty()).await;
}

/// A process that ends with the test.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_boots_straight_from_a_backup_that_is_served() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("passphrase"), "words\n").expect("written");
    std::fs::set_permissions(at("passphrase"), PermissionsExt::from_mode(0o600)).expect("ours");
    let repository = |command: &str, more: &[&str]| {
        let store = format!("file://{}", at("store"));
        let mut loam = Command::new(system_tests::binary("loam"));
        loam.args(["repository", command, "--store", &store, "--passphrase-file", &at("passphrase")]);
        loam.args(["--cache", "none"]).args(more);
        loam
    };
    let done = |mut command: Command| assert!(command.status().expect("it runs").success(), "{command:?}");
    done(repository("init", &[]));
    done(repository("backup", &["--machine", "tiny", "--disk", &format!("vda={}", guest())]));

    let (socket, serial) = (at("nbd.sock"), at("serial.log"));
    let overlay = at("overlay.raw");
    let serve = ["latest", "--disk", "vda", "--socket", &socket, "--overlay", &overlay, "--fill"];
    let _serving = Running(repository("serve", &serve).spawn().expect("it runs"));
    eventually("the disk is served", async || std::path::Path::new(&socket).exists()).await;
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-m", "256", "-no-reboot", "-display", "none", "-monitor", "none"])
        .args(["-drive", &format!("file=nbd+unix:///vda?socket={socket},format=raw,if=virtio")])
        .args(["-serial", &format!("file:{serial}")]);
    let _guest = Running(qemu.spawn().expect("it runs"));
    eventually_some("the guest is up", GUEST_MAX, async || {
        std::fs::read_to_string(&serial).ok()?.contains("guest up").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_services_leave_no_domain_export_or_checkpoint_behind() {
    let installation = installation().await;
    create(&installation);
    let proxy = installation.proxy().await;
    let page = async || get(proxy, "web.example", "/").await.map(|answer| answer.body).unwrap_or_default();
    eventually("the page is reached", async || page().await.contains("hello from web")).await;
    assert_eq!(over_ssh(&installation, "web", &["hostname"]), "web");
    let failed = installation.loam(&["vm", "ssh", "web", "--", "exit", "7"]);
    assert_eq!(failed.status.code(), Some(7), "the exit code of the command in the VM");
    let emulated = &installation.loam_json(&["vm", "show", "web"])["emulation_reason"];
    assert!(emulated.as_str().is_some_and(|reason| reason.contains("configuration")), "{emulated}");
    let status = String::from_utf8(installation.loam(&["status"]).stdout).expect("text");
    assert!(status.contains("VMs are emulated, about ten times slower"), "{status}");

    for (round, (victim, wait_ms)) in
        [(Service::Provisioner, 150u64), (Service::Backup, 400), (Service::Provisioner, 900)]
            .into_iter()
            .enumerate()
    {
        let id = OperationId::from_parts(1_800_000_000_000, 100 + round as u128);
        installation.ask(StartBackup { vm: web(), schedule: None, operation_id: Some(id.clone()) }).await;
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        installation.kill(victim).await;
        let report = installation.end_of(Service::Backup, &id).await;
        let committed = backups(&installation).await.iter().any(|backup| backup.id.as_str() == id.as_str());
        assert_eq!(report.state == OperationState::Done, committed, "round {round}: {:?}", report.reason);
        assert_ne!(report.state, OperationState::Stuck, "round {round}: {:?}", report.reason);
        eventually("no backup job is left", async || {
            domains().iter().all(|domain| virsh(&["domjobinfo", domain]).contains("None"))
        })
        .await;
        assert!(
            domains().iter().all(|domain| virsh(&["checkpoint-list", domain, "--name"]).trim().is_empty())
        );
        if committed {
            installation.loam_json(&["backup", "verify", &format!("web@{id}")]);
        }
        assert!(page().await.contains("hello from web"), "round {round}: the machine goes on serving");
    }

    let mut definition = installation.ask(ListVms {}).await.remove(0).definition;
    definition.domains.clear();
    for (round, wait_ms) in [300u64, 2_500].into_iter().enumerate() {
        definition.name = VmName::new(format!("vm{round}")).expect("valid");
        let id = OperationId::from_parts(1_800_000_000_000, 200 + round as u128);
        installation
            .ask(CreateVm {
                definition: definition.clone(),
                host: None,
                overcommit: false,
                operation_id: Some(id.clone()),
            })
            .await;
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        installation.kill(Service::Provisioner).await;
        let report = eventually_some("the creation has ended", GUEST_MAX, async || {
            let ask = contract::operation::GetOperation { id: id.clone() };
            let report = installation.bus().call_at(Service::Provisioner, &ask, CALL_MAX).await.ok()?;
            report.state.is_final().then_some(report)
        })
        .await;
        let there = installation.ask(ListVms {}).await.iter().any(|vm| vm.definition.name == definition.name);
        assert_eq!(report.state == OperationState::Done, there, "round {round}: {:?}", report.reason);
        assert_eq!(
            domains().len(),
            installation.ask(ListVms {}).await.len(),
            "round {round}: {:?}",
            domains()
        );
    }
    installation.loam_json(&["backup", "run", "web"]);
    let id = OperationId::from_parts(1_800_000_000_000, 300);
    let copy = VmName::new("copy").expect("valid");
    let command = RestoreBackupAsVm {
        backup: "web@latest".parse().expect("valid"),
        as_vm: copy.clone(),
        host: None,
        overcommit: false,
        operation_id: Some(id.clone()),
    };
    installation.ask(command).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    installation.kill(Service::Provisioner).await;
    installation.kill(Service::Backup).await;
    let report = installation.end_of(Service::Backup, &id).await;
    let there = installation.ask(ListVms {}).await.iter().any(|vm| vm.definition.name == copy);
    assert_eq!(report.state == OperationState::Done, there, "{:?}", report.reason);
    assert_eq!(domains().len(), installation.ask(ListVms {}).await.len(), "{:?}", domains());

    for vm in installation.ask(ListVms {}).await {
        installation.loam_json(&["vm", "remove", vm.definition.name.as_str()]);
    }
    assert!(domains().is_empty(), "{:?}", domains());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_libvirtd_is_reported_in_bounded_time_and_used_again_when_it_answers() {
    let installation = installation().await;
    let pid = std::fs::read_to_string("/run/libvirtd.pid").expect("the realm's libvirtd wrote its pid");
    let libvirtd = Pid::from_raw(pid.trim().parse().expect("a pid"));
    let problem = async || {
        let health =
            installation.bus().call_at(Service::Provisioner, &CheckHealth {}, CALL_MAX).await.ok()?;
        health.parts.into_iter().find_map(|part| part.problem)
    };
    kill(libvirtd, Signal::SIGSTOP).expect("stopped");
    eventually("its health says so", async || problem().await.is_some()).await;
    assert!(installation.ask(ListVms {}).await.is_empty(), "what needs no hypervisor is answered");
    kill(libvirtd, Signal::SIGCONT).expect("goes on");
    eventually("it is healthy again", async || problem().await.is_none()).await;
    create(&installation);
    assert_eq!(installation.ask(ListVms {}).await[0].state, VmState::Ready);
    installation.loam_json(&["vm", "remove", "web"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_is_created_from_an_ordinary_debian_cloud_image() {
    let image = std::env::var("LOAM_TEST_DEBIAN").expect("tests/run makes the image with deploy/build-seed");
    let installation = installation().await;
    let digest = Command::new("sha256sum").arg(&image).output().expect("coreutils").stdout;
    let digest = String::from_utf8(digest).expect("text");
    let digest = digest.split_whitespace().next().expect("a digest");
    installation.loam_json(&["seed", "add", "debian-12", "--from", &image, "--sha256", digest]);
    let script = "#!/bin/bash\nset -e\nmkdir -p /srv/www\necho \"$GREETING from $(hostname)\" > /srv/www/index.html\n\
                  systemd-run --unit page python3 -m http.server 80 --directory /srv/www\n";
    std::fs::write(installation.state().join("page.sh"), script).expect("written");
    let file = installation.state().join("web.toml");
    let text = "name = \"web\"\nseed = \"debian-12\"\ncpu_count = 2\nram_size = \"768M\"\ndisk_size = \"100G\"\n\
                domains = [\"web.example\"]\ninstall = [\"page.sh\"]\n\n[env]\nGREETING = \"hello\"\n";
    std::fs::write(&file, text).expect("written");
    // A hundred GiB may be more than this machine has; little of it is written.
    installation.loam_json(&["vm", "create", &file.display().to_string(), "--overcommit"]);
    let proxy = installation.proxy().await;
    eventually("the page is reached", async || {
        get(proxy, "web.example", "/").await.is_ok_and(|answer| answer.body.contains("hello from web"))
    })
    .await;
    assert_eq!(over_ssh(&installation, "web", &["id", "-un"]), "root");
    installation.loam_json(&["backup", "run", "web"]);
    let backup = backups(&installation).await.remove(0);
    assert!(backup.bytes_read.0 < 4 << 30, "only what is allocated of 100 GiB is read: {backup:?}");
    installation.loam_json(&["vm", "remove", "web"]);
}
