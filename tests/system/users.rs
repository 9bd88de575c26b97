//! Started by root, each service runs as a user of its own that reads no key and no file of another, and the main job
//! works all the same.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use contract::backup::ListBackups;
use contract::provisioner::{GetVm, VmState};
use contract::{Service, VmName};
use nix::unistd::{Uid, User};
use system_tests::Installation;

use crate::backup_restore::web;
use crate::provision::create_web;

/// Capabilities by their numbers in `linux/capability.h`.
const CHOWN: u64 = 1 << 0;
const DAC_OVERRIDE: u64 = 1 << 1;
const FOWNER: u64 = 1 << 3;
const NET_BIND_SERVICE: u64 = 1 << 10;

/// What the kernel says of a process.
fn status(pid: u32) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_string(), value.trim().replace('\t', " "))).collect()
}

fn user(name: &str) -> User {
    User::from_name(name).expect("the database can be read").unwrap_or_else(|| panic!("there is no {name}"))
}

/// The process of the NATS server, from the name of the file in which it says its ports.
fn server_of(state: &Path) -> u32 {
    let ports = std::fs::read_dir(state.join("run/nats")).expect("there").flatten();
    let name = ports.map(|entry| entry.file_name().into_string().expect("text"));
    let number = |name: String| name.strip_suffix(".ports")?.rsplit(['-', '_']).next()?.parse().ok();
    name.into_iter().find_map(number).expect("the server has written its ports")
}

/// Whether a user can read a file, or list a folder.
fn reads(user: &User, path: &Path) -> bool {
    let program = if path.is_dir() { "ls" } else { "cat" };
    let mut command = Command::new(program);
    command.arg(path).uid(user.uid.as_raw()).gid(user.gid.as_raw());
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.expect("coreutils").success()
}

fn files_under(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("root can").flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files_under(&path)) } else { found.push(path) }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn each_service_is_a_user_of_its_own_and_the_main_job_works() {
    let installation = Installation::simulated().await;
    let state = installation.state();
    let simulated = CHOWN | DAC_OVERRIDE | FOWNER | NET_BIND_SERVICE;
    let mut expected = vec![("root", simulated, installation.process(Service::Provisioner).await.pid)];
    expected.push(("loam-nats", 0, Some(server_of(state))));
    for (name, service) in [
        ("loam-backup", Service::Backup),
        ("loam-proxy", Service::Proxy),
        ("loam-scheduler", Service::Scheduler),
        ("loam-upgrade", Service::Upgrade),
    ] {
        expected.push((name, 0, installation.process(service).await.pid));
    }
    for (name, capabilities, pid) in expected {
        let (user, status) = (user(name), status(pid.expect("it runs")));
        let [uid, gid] =
            [user.uid, Uid::from_raw(user.gid.as_raw())].map(|id| format!("{id} {id} {id} {id}"));
        assert_eq!((&status["Uid"], &status["Gid"]), (&uid, &gid), "{name}");
        assert_eq!(status["Groups"], "", "{name}");
        assert_eq!(status["NoNewPrivs"], "1", "{name}");
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            let found = u64::from_str_radix(&status[set], 16).expect("hexadecimal");
            assert_eq!(found, capabilities, "{name}: {set}");
        }
    }

    create_web(&installation).await;
    installation.loam_json(&["backup", "run", "web"]);
    installation.loam_json(&["backup", "restore", "web@latest", "--as", "web2"]);
    let restored = installation.ask(GetVm { vm: VmName::new("web2").expect("valid") }).await;
    assert_eq!(restored.state, VmState::Ready);
    let backup = installation.ask(ListBackups { vm: Some(web()) }).await.remove(0);
    installation.loam_json(&["backup", "verify", &format!("web@{}", backup.id)]);
    installation.loam_json(&["backup", "run", "web2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_reads_its_own_key_and_no_file_of_another() {
    let installation = Installation::simulated().await;
    create_web(&installation).await;
    let state = installation.state();
    let [nats, backup, proxy, scheduler, upgrade] =
        ["loam-nats", "loam-backup", "loam-proxy", "loam-scheduler", "loam-upgrade"].map(user);
    let own = [
        (&backup, vec!["keys/backup.nk", "keys/backup.key", "run/backup.toml"]),
        (&proxy, vec!["keys/proxy.nk", "run/proxy.toml"]),
        (&scheduler, vec!["keys/scheduler.nk", "run/scheduler.toml"]),
        (&upgrade, vec!["keys/upgrade.nk", "run/upgrade.toml"]),
        (&nats, vec!["nats/nats.conf"]),
    ];
    // Public keys are for all; so are seeds, which QEMU's user reads, to whoever knows their digest.
    let is_public =
        |path: &Path| path.starts_with(state.join("keys/release")) || path.ends_with("people.toml");
    let private: Vec<PathBuf> = ["keys", "run", "nats", "log", "store", "backup", "vms"]
        .into_iter()
        .flat_map(|folder| files_under(&state.join(folder)))
        .chain([state.join("client.toml")])
        .filter(|path| !is_public(path) && path.metadata().is_ok_and(|about| about.is_file()))
        .collect();
    assert!(private.len() > 30, "{private:?}");
    for (user, own) in &own {
        for path in own {
            assert!(reads(user, &state.join(path)), "{} does not read {path}", user.name);
        }
        for path in &private {
            let relative = path.strip_prefix(state).expect("inside");
            let is_own = own.iter().any(|own| relative == Path::new(own))
                || (user.name == "loam-nats"
                    && (relative.starts_with("nats") || relative.starts_with("run/nats")))
                || (user.name == "loam-backup"
                    && (relative.starts_with("store") || relative.starts_with("backup")));
            assert!(is_own || !reads(user, path), "{} reads {}", user.name, relative.display());
        }
        for folder in ["keys", "keys/bootstrap", "run", "log", "vms", "vms/web"] {
            assert!(!reads(user, &state.join(folder)), "{} lists {folder}", user.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_user_for_all_everything_is_as_before_and_it_can_be_changed() {
    let options =
        system_tests::InstallationOptions { settings: "separate_users = false".into(), ..Default::default() };
    let mut installation = Installation::start(options).await;
    create_web(&installation).await;
    installation.loam_json(&["backup", "run", "web"]);
    let pid = installation.process(Service::Backup).await.pid.expect("it runs");
    assert_eq!(status(pid)["Uid"], "0 0 0 0");
    assert_eq!(status(pid)["NoNewPrivs"], "1");
    assert!(installation.end().await.success());
    installation.set_settings("");
    installation.restart().await;
    let pid = installation.process(Service::Backup).await.pid.expect("it runs");
    let uid = user("loam-backup").uid;
    assert_eq!(status(pid)["Uid"], format!("{uid} {uid} {uid} {uid}"));
    installation.loam_json(&["backup", "verify", "web@latest"]);
    installation.loam_json(&["backup", "run", "web"]);
}
