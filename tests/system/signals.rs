//! `loam up` and signals: SIGTERM ends it at any moment of its start and leaves nothing behind, SIGHUP ends nothing.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use contract::Service;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use system_tests::{Installation, binary};
use testkit::{eventually, eventually_some};

/// How long an end in order may take on a busy machine.
const END_MAX: Duration = Duration::from_secs(60);

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).expect("it runs");
}

fn start(state: &Path) -> Child {
    let file = state.join("loam.toml");
    std::fs::write(&file, "[nats]\nport = 0\n[proxy]\nhttp_listen = \"127.0.0.1:0\"\n").expect("written");
    let mut up = Command::new(binary("loam"));
    up.arg("--state").arg(state).arg("up").arg("--config").arg(&file).args(["--hypervisor", "simulated"]);
    up.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    up.spawn().expect("loam up starts")
}

fn handles_sighup(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask & 1 << (Signal::SIGHUP as u32 - 1) != 0)
}

/// The processes whose environment or arguments name this state folder.
fn processes_of(state: &Path) -> Vec<u32> {
    let folder = state.display().to_string();
    let entries = std::fs::read_dir("/proc").expect("there").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let names = |pid: &u32, file: &str| {
        let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).contains(&folder)
    };
    pids.filter(|pid| names(pid, "cmdline") || names(pid, "environ")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_loam_up_at_any_moment_of_its_start_and_nothing_stays() {
    for wait_ms in [20, 60, 120, 250, 400, 700, 1500] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut up = start(folder.path());
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        send(&up, Signal::SIGTERM);
        let status: ExitStatus =
            eventually_some(&format!("it ends {wait_ms} ms after its start"), END_MAX, async || {
                up.try_wait().expect("it can be waited for")
            })
            .await;
        // Before it listens for signals, the signal itself ends it.
        let by_signal =
            std::os::unix::process::ExitStatusExt::signal(&status) == Some(Signal::SIGTERM as i32);
        assert!(status.success() || by_signal, "{wait_ms} ms: {status}");
        eventually("none of its processes stays", async || processes_of(folder.path()).is_empty()).await;
        let log = std::fs::read_to_string(folder.path().join("log/supervisor.log")).unwrap_or_default();
        assert!(
            !log.contains("killing it"),
            "each of them obeys SIGTERM, too, {wait_ms} ms after the start: {log}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_ends_nothing_neither_while_it_starts_nor_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut up = start(folder.path());
    eventually("it handles SIGHUP, the first thing that it does", async || handles_sighup(up.id())).await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        send(&up, Signal::SIGHUP);
    }
    eventually("it comes up", async || folder.path().join("client.toml").exists()).await;
    assert_eq!(up.try_wait().expect("it can be waited for"), None);
    send(&up, Signal::SIGTERM);
    let ended = async || up.try_wait().expect("it can be waited for");
    assert!(eventually_some("it ends", END_MAX, ended).await.success());

    let installation = Installation::simulated().await;
    let before = installation.process(Service::Proxy).await.pid;
    for pid in processes_of(installation.state()) {
        if pid != std::process::id() {
            kill(Pid::from_raw(pid as i32), Signal::SIGHUP).expect("it runs");
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    installation.ready().await;
    assert_eq!(installation.process(Service::Proxy).await.pid, before);
    let log = std::fs::read_to_string(installation.state().join("up.log")).expect("readable");
    assert!(!log.contains("degraded") && !log.contains("no service answers"), "a start is quiet: {log}");
}
