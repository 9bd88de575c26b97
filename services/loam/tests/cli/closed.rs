//! Standard output that is closed, or full.

use std::fs::File;
use std::process::{Command, Output, Stdio};

use crate::installation::{BACKED_UP, CREATED, Installation};

/// A pipe whose reader is gone.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").expect("every Linux has it").into()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// One of each kind: listings, single things, work that is followed, work without a bus, help.
fn commands(installation: &Installation) -> Vec<Vec<String>> {
    let definition = installation.write_definition();
    let lines = [
        "--help",
        "--version",
        "vm --help",
        "repository backup --help",
        "status",
        "seed list",
        "seed remove debian",
        "vm list",
        "vm list --json",
        "vm show vm-0",
        "vm create DEFINITION",
        "vm create DEFINITION --detach",
        "proxy",
        "backup list",
        "backup run vm-0",
        "schedule list",
        "schedule runs nightly",
        "schedule add nightly --cron @daily --backup vm-0",
        "schedule remove nightly",
        "upgrade status",
        "op list",
        "op show CREATED",
        "op watch CREATED",
        "completion bash",
        "completion zsh",
        "bus generate-config --listen 127.0.0.1:4222 --data /data --url nats://127.0.0.1:4222",
    ];
    let word = |word: &str| match word {
        "DEFINITION" => definition.clone(),
        "CREATED" => CREATED.into(),
        word => word.to_string(),
    };
    lines.map(|line| line.split(' ').map(word).collect()).into()
}

fn loam(installation: &Installation, words: &[String]) -> Command {
    installation.loam(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_command_ends_quietly_and_well_when_nobody_reads_it() {
    let installation = Installation::with_vms(2).await;
    for words in commands(&installation) {
        let output = loam(&installation, &words).stdout(closed()).output().expect("it runs");
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""), "{words:?}");
        let status = loam(&installation, &words).stdout(closed()).stderr(closed()).status().expect("it runs");
        assert_eq!(status.code(), Some(0), "{words:?} with standard error closed, too");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_answer_that_cannot_be_written_is_reported_and_no_success() {
    let installation = Installation::with_vms(2).await;
    let ended = |words: &[&str]| {
        let output = installation.loam(words).stdout(full()).output().expect("it runs");
        let stderr = stderr(&output);
        assert!(stderr.contains("writing to standard output: No space left"), "{words:?}: {stderr}");
        output.status.code()
    };
    for shows in [&["vm", "list"][..], &["op", "show", CREATED], &["--help"], &["completion", "fish"]] {
        assert_eq!(ended(shows), Some(1), "{shows:?}");
    }
    // What was done is done: nobody takes it for a failure.
    assert_eq!(ended(&["backup", "run", "vm-0"]), Some(6));
    assert_eq!(ended(&["op", "watch", BACKED_UP]), Some(6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_error_keeps_its_exit_code_when_nobody_reads_it() {
    let installation = Installation::with_vms(2).await;
    for (words, code) in [
        (&["vm", "show", "nobody", "--json"][..], 3),
        (&["op", "cancel", CREATED, "--json"], 3),
        (&["vm", "nonsense", "--json"], 2),
        (&["--state", "/nonexistent", "vm", "list", "--json"], 4),
    ] {
        for stdout in [closed(), full()] {
            let output = installation.loam(words).stdout(stdout).output().expect("it runs");
            assert_eq!(output.status.code(), Some(code), "{words:?}: {}", stderr(&output));
        }
    }
}
