//! What a keeper promises, on real processes: started again when they die, ended in order, never outliving us.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use loam::up::child::{BECOME, Launch};
use loam::up::keeper::{END_MAX, Keeper, Phase};
use testkit::eventually;
use tokio_util::sync::CancellationToken;

const LOAM: &str = env!("CARGO_BIN_EXE_loam");

struct Stage {
    folder: tempfile::TempDir,
    script: Arc<Mutex<String>>,
    hurry: CancellationToken,
}

impl Stage {
    fn playing(script: &str) -> Stage {
        Stage {
            folder: tempfile::tempdir().expect("a folder"),
            script: Arc::new(Mutex::new(script.into())),
            hurry: CancellationToken::new(),
        }
    }

    fn keep(&self) -> Keeper {
        let script = Arc::clone(&self.script);
        let plan = move || {
            let text = script.lock().expect("no panic").clone();
            Ok(Launch::of("actor", Path::new("/bin/sh")).arg("-c").arg(text))
        };
        let log = self.folder.path().join("actor.log");
        Keeper::start("actor", PathBuf::from(LOAM), log, Box::new(plan), self.hurry.clone())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("actor.log")).unwrap_or_default()
    }

    /// Waits until the script has said something; then its traps are set, too.
    async fn said(&self, words: &str) {
        eventually("the script speaks", async || self.log().contains(words)).await;
    }
}

#[tokio::test]
async fn what_dies_is_started_again_and_its_last_words_are_known() {
    let stage = Stage::playing("echo my last words; exit 3");
    let keeper = stage.keep();
    eventually("it was started again", async || keeper.view().restarts >= 3).await;
    eventually("its end is told", async || {
        matches!(keeper.view().phase, Phase::Down(why) if why.contains("3") && why.contains("my last words"))
    })
    .await;
    keeper.end().await;
}

#[tokio::test]
async fn a_restart_starts_what_the_plan_says_now_and_is_no_death() {
    let stage = Stage::playing("echo first; exec sleep 600");
    let keeper = stage.keep();
    stage.said("first").await;
    *stage.script.lock().expect("no panic") = "echo second; exec sleep 600".into();
    keeper.handle().restart().await.expect("restarted");
    stage.said("second").await;
    let view = keeper.view();
    assert!(matches!(view.phase, Phase::Up(_)) && view.restarts == 0, "{view:?}");
    let handle = keeper.handle();
    keeper.end().await;
    assert_eq!(handle.view().phase, Phase::Ended);
    assert!(handle.restart().await.is_err(), "nobody is there to start anything any more");
}

#[tokio::test]
async fn what_does_not_end_is_killed_and_at_once_if_we_are_in_a_hurry() {
    let stage = Stage::playing("trap '' TERM; echo deaf; while :; do sleep 0.1; done");
    let keeper = stage.keep();
    stage.said("deaf").await;
    stage.hurry.cancel();
    let begun = Instant::now();
    keeper.end().await;
    assert!(begun.elapsed() < END_MAX, "it was not waited for");
}

#[tokio::test]
async fn what_was_asked_to_end_may_end_in_order() {
    let stage = Stage::playing("trap 'echo in order; exit 0' TERM; echo ready; while :; do sleep 0.1; done");
    let keeper = stage.keep();
    stage.said("ready").await;
    keeper.end().await;
    assert!(stage.log().contains("in order"));
}

#[tokio::test]
async fn a_process_dies_with_its_supervisor_however_that_dies() {
    let script = format!("{LOAM} {BECOME} $$ /bin/sleep 600 & echo $!; wait");
    let mut supervisor =
        Command::new("/bin/sh").arg("-c").arg(script).stdout(Stdio::piped()).spawn().expect("started");
    let mut line = String::new();
    BufReader::new(supervisor.stdout.take().expect("piped")).read_line(&mut line).expect("its child's id");
    let stat = format!("/proc/{}/stat", line.trim());
    // Name and state of a process; whoever is dead and not yet buried is in state Z.
    let stat = || std::fs::read_to_string(&stat).unwrap_or_default();
    eventually("it became the program", async || stat().contains("(sleep)")).await;
    supervisor.kill().expect("killed");
    supervisor.wait().expect("buried");
    eventually("it is dead", async || stat().is_empty() || stat().contains(") Z ")).await;
}

#[test]
fn nothing_becomes_another_program_for_a_stranger() {
    let output = Command::new(LOAM).args([BECOME, "1", "/bin/true"]).output().expect("started");
    assert!(!output.status.success(), "its parent is not the one named");
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("loam: "));
}
