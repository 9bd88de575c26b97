//! Ctrl-C in the middle.

use std::io::Write;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::place::{Ended, MIB, Place};

#[test]
fn an_interrupted_backup_ends_with_130_and_leaves_no_snapshot() {
    let place = Place::with_repository();
    let arguments = ["--machine", "db", "--stdin", "dump", "--json"];
    let mut command = place.command("backup", &arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A pipe holds less than this: when all of it is taken, the backup is under way, and waits for more.
    stdin.write_all(&vec![7; 4 * MIB]).unwrap();
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    let ended = Ended::from(child.wait_with_output().unwrap());
    drop(stdin);
    assert_eq!(ended.json_of(130)["error"]["kind"], "interrupted");
    assert_eq!(place.ask("info", &[])["snapshots"], 0);
    // Its lease has ended: nothing waits for it.
    let collected = place.ask("collect", &["--pack-age-min", "0s"]);
    assert_eq!(collected["packs_waiting"], 0, "{collected}");
}
