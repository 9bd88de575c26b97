//! What a keeper promises, on real processes: restarted when they die, ended in order, never outliving the supervisor.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use loam::up::child::{EXEC, LaunchSpec};
use loam::up::keeper::{END_MAX, Keeper, ProcessState};
use testkit::eventually;
use tokio_util::sync::CancellationToken;

const LOAM: &str = env!("CARGO_BIN_EXE_loam");

struct Fixture {
    folder: tempfile::TempDir,
    script: Arc<Mutex<String>>,
    force: CancellationToken,
}

impl Fixture {
    fn with_script(script: &str) -> Fixture {
        Fixture {
            folder: tempfile::tempdir().expect("a folder"),
            script: Arc::new(Mutex::new(script.into())),
            force: CancellationToken::new(),
        }
    }

    fn keep(&self) -> Keeper {
        let script = Arc::clone(&self.script);
        let plan = move || {
            let text = script.lock().expect("no panic").clone();
            Ok(LaunchSpec::of("script", Path::new("/bin/sh")).arg("-c").arg(text))
        };
        let log = self.folder.path().join("script.log");
        Keeper::start("script", PathBuf::from(LOAM), log, Box::new(plan), self.force.clone())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("script.log")).unwrap_or_default()
    }

    /// Waits until the script has written something; then its traps are set, too.
    async fn wrote(&self, text: &str) {
        eventually("the script writes", async || self.log().contains(text)).await;
    }
}

#[tokio::test]
async fn a_process_that_dies_is_restarted_and_its_last_line_is_known() {
    let fixture = Fixture::with_script("echo my last line; exit 3");
    let keeper = fixture.keep();
    eventually("it was started again", async || keeper.status().restarts >= 3).await;
    eventually("the reason is known", async || {
        matches!(keeper.status().state, ProcessState::Down(why) if why.contains("3") && why.contains("my last line"))
    })
    .await;
    keeper.end().await;
}

#[tokio::test]
async fn a_restart_starts_what_the_plan_says_now_and_does_not_count_as_a_death() {
    let fixture = Fixture::with_script("echo first; exec sleep 600");
    let keeper = fixture.keep();
    fixture.wrote("first").await;
    *fixture.script.lock().expect("no panic") = "echo second; exec sleep 600".into();
    keeper.handle().restart().await.expect("restarted");
    fixture.wrote("second").await;
    let status = keeper.status();
    assert!(matches!(status.state, ProcessState::Up(_)) && status.restarts == 0, "{status:?}");
    let handle = keeper.handle();
    keeper.end().await;
    assert_eq!(handle.status().state, ProcessState::Stopped);
    assert!(handle.restart().await.is_err(), "its keeper has ended");
}

#[tokio::test]
async fn a_process_that_does_not_end_is_killed_at_once_when_forced() {
    let fixture = Fixture::with_script("trap '' TERM; echo deaf; while :; do sleep 0.1; done");
    let keeper = fixture.keep();
    fixture.wrote("deaf").await;
    fixture.force.cancel();
    let begun = Instant::now();
    keeper.end().await;
    assert!(begun.elapsed() < END_MAX, "it was not given time");
}

#[tokio::test]
async fn a_process_may_end_in_order_after_sigterm() {
    let fixture =
        Fixture::with_script("trap 'echo in order; exit 0' TERM; echo ready; while :; do sleep 0.1; done");
    let keeper = fixture.keep();
    fixture.wrote("ready").await;
    keeper.end().await;
    assert!(fixture.log().contains("in order"));
}

#[tokio::test]
async fn a_process_dies_with_its_supervisor_however_that_dies() {
    let script = format!("{LOAM} {EXEC} $$ - /bin/sleep 600 & echo $!; wait");
    let mut supervisor =
        Command::new("/bin/sh").arg("-c").arg(script).stdout(Stdio::piped()).spawn().expect("started");
    let mut line = String::new();
    BufReader::new(supervisor.stdout.take().expect("piped")).read_line(&mut line).expect("its child's id");
    let stat = format!("/proc/{}/stat", line.trim());
    // Name and state of a process; a dead process that was not waited for is in state Z.
    let stat = || std::fs::read_to_string(&stat).unwrap_or_default();
    eventually("it became the program", async || stat().contains("(sleep)")).await;
    supervisor.kill().expect("killed");
    supervisor.wait().expect("waited for");
    eventually("it is dead", async || stat().is_empty() || stat().contains(") Z ")).await;
}

#[test]
fn only_the_supervisor_can_start_another_program_this_way() {
    let output = Command::new(LOAM).args([EXEC, "1", "-", "/bin/true"]).output().expect("started");
    assert!(!output.status.success(), "its parent is not the one named");
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("loam: "));
}
