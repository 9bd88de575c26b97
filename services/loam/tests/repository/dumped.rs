//! A process that has secrets in memory and crashes.

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::place::{MIB, Place};

/// Lets whatever it becomes dump as much as this machine allows at all.
const WITH_DUMPS: &str = r#"ulimit -c "$(ulimit -H -c)" && exec "$0" "$@""#;

#[test]
fn a_command_that_crashes_leaves_no_core_dump() {
    let (place, other) = (Place::with_repository(), tempfile::tempdir().unwrap());
    let mut any = Command::new("sh");
    any.args(["-c", WITH_DUMPS, "sh", "-c", "kill -ABRT $$"]).current_dir(other.path());
    println!("another program that crashes here leaves a dump: {}", any.status().unwrap().core_dumped());

    let backup = place.command("backup", &["--machine", "db", "--stdin", "dump"]);
    let mut command = Command::new("sh");
    command.args(["-c", WITH_DUMPS]).arg(backup.get_program()).args(backup.get_args());
    command.current_dir(place.path("")).env("XDG_CACHE_HOME", place.path("cache"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A pipe holds less than this: when all of it is taken, the keys are open.
    stdin.write_all(&vec![7; 4 * MIB]).unwrap();
    let limits = fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert_eq!(limit.split_whitespace().collect::<Vec<_>>(), ["0", "0", "bytes"]);
    let names = || {
        let entries = fs::read_dir(place.path("")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    // What a panic ends with.
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGABRT).unwrap();
    let ended = child.wait().unwrap();
    assert_eq!(ended.signal(), Some(Signal::SIGABRT as i32), "it was this that ended it");
    assert!(!ended.core_dumped());
    assert_eq!(names(), before, "no core lies beside what was there");
}
