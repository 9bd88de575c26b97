//! A process that `loam up` starts as another user has that user's rights, and no more, whatever folder its program is in.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// A user without anything.
const UID: u32 = 60_003;
/// `CAP_NET_BIND_SERVICE`.
const NET_BIND_SERVICE: u64 = 1 << 10;

/// Runs a program as `loam up` does, with an argument.
fn execute(user: &str, program: &Path, argument: &str) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loam"));
    command.arg("__exec").arg(std::process::id().to_string()).arg(user).arg(program).arg(argument);
    command.output().expect("loam runs")
}

fn status(user: &str, program: &Path) -> BTreeMap<String, String> {
    let output = execute(user, program, "/proc/self/status");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_string(), value.trim().replace('\t', " "))).collect()
}

#[test]
fn a_process_has_its_users_rights_and_no_more() {
    // Only root can become others.
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let cat = Path::new("/bin/cat");
    let folder = tempfile::tempdir().expect("a folder");
    let hidden = folder.path().join("cat");
    std::fs::copy(cat, &hidden).expect("copied");
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o700)).expect("closed to others");
    for program in [cat, &hidden] {
        for capabilities in [0, NET_BIND_SERVICE] {
            let status = status(&format!("{UID}:{UID}:{capabilities}"), program);
            let ids = format!("{UID} {UID} {UID} {UID}");
            assert_eq!((&status["Uid"], &status["Gid"], &status["Groups"]), (&ids, &ids, &String::new()));
            assert_eq!(status["NoNewPrivs"], "1");
            for set in ["CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                let found = u64::from_str_radix(&status[set], 16).expect("hexadecimal");
                assert_eq!(found, capabilities, "{set}");
            }
        }
    }
    assert_eq!(status("-", cat)["Uid"], "0 0 0 0");
}

#[test]
fn a_wrong_call_starts_nothing() {
    for user in ["", "root", "0", "0:0", "0:0:x", "0:0:0:0", "-1:0:0"] {
        let output = execute(user, Path::new("/bin/echo"), "started");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && output.stdout.is_empty(), "{user:?}");
        assert!(stderr.contains("is for `loam up` alone"), "{user:?}: {stderr}");
    }
}
