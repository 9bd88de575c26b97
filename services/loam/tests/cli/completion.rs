//! What a shell gets at a Tab.

use std::time::{Duration, Instant};

use crate::installation::{BACKED_UP, Installation};

/// What bash would offer for the last of these words.
fn offered(installation: &Installation, words: &[&str]) -> Vec<String> {
    let mut loam = std::process::Command::new(env!("CARGO_BIN_EXE_loam"));
    loam.env("LOAM_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", words.len().to_string());
    loam.env("_CLAP_IFS", "\n").env("LOAM_STATE", installation.path(""));
    let output = loam.args(["--", "loam"]).args(words).output().expect("it runs");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(|line| line.trim_end().to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn names_of_every_kind_are_completed() {
    let installation = Installation::with_vms(2).await;
    assert_eq!(offered(&installation, &["vm", "show", "vm"]), ["vm-0", "vm-1"]);
    assert_eq!(offered(&installation, &["backup", "run", "vm-1"]), ["vm-1"]);
    assert_eq!(offered(&installation, &["seed", "remove", ""])[0], "debian");
    assert_eq!(offered(&installation, &["backup", "restore", "vm-0@0"]), ["vm-0@01KB5X00"]);
    assert_eq!(offered(&installation, &["backup", "verify", "vm-0@l"]), ["vm-0@latest"]);
    assert_eq!(offered(&installation, &["schedule", "runs", "n"]), ["nightly"]);
    assert_eq!(offered(&installation, &["op", "watch", "01kb5x"]), [BACKED_UP]);
    assert_eq!(offered(&installation, &["op", "list", "--service", "ba"]), ["backup"]);
    assert!(offered(&installation, &["vm", "st"]).iter().any(|word| word == "start"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_a_bus_nothing_is_offered_soon_and_silently() {
    let installation = Installation::with_vms(1).await;
    let client =
        "url = \"nats://127.0.0.1:1\"\nkey = \"/nonexistent\"\nperson = \"operator\"\nrealm = \"loam\"\n";
    std::fs::write(installation.path("client.toml"), client).expect("written");
    let begun = Instant::now();
    let offered = offered(&installation, &["vm", "show", "vm"]);
    assert!(offered.iter().all(|word| !word.starts_with("vm-")), "{offered:?}");
    // It gives up after 0.7 s; the rest is for a machine that stands still.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn there_is_a_script_for_each_shell() {
    for (shell, words) in [("bash", "complete -o nospace"), ("zsh", "#compdef loam"), ("fish", "complete")] {
        let output =
            std::process::Command::new(env!("CARGO_BIN_EXE_loam")).args(["completion", shell]).output();
        let script = String::from_utf8(output.expect("it runs").stdout).expect("UTF-8");
        assert!(script.contains(words) && script.contains("LOAM_COMPLETE"), "{shell}: {script}");
    }
}
