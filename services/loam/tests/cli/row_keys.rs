//! `loam row-keys`: the file of keys, changed by commands.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn loam(state: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loam"));
    command.arg("--state").arg(state).arg("row-keys").args(arguments).arg("--json");
    command.output().expect("loam runs")
}

fn answer(state: &Path, arguments: &[&str]) -> Value {
    let output = loam(state, arguments);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn ids(state: &Path) -> Vec<String> {
    let list = answer(state, &["list"]);
    let id = |key: &Value| key["id"].as_str().expect("an id").to_owned();
    list.as_array().expect("a list").iter().map(id).collect()
}

#[test]
fn a_key_is_added_before_the_others_and_only_an_older_one_is_removed() {
    let state = tempfile::tempdir().expect("a folder");
    let state = state.path();
    let path = state.join("keys/rows.key");
    std::fs::create_dir(state.join("keys")).expect("a folder");
    assert!(!loam(state, &["list"]).status.success(), "there is none");
    std::fs::write(&path, format!("# kept\n{}", *encryption::new_key([1; 32]))).expect("written");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).expect("its mode");
    for command in [&["list"][..], &["add"]] {
        let refused = loam(state, command);
        let text = String::from_utf8_lossy(&[&refused.stdout[..], &refused.stderr].concat()).into_owned();
        assert!(!refused.status.success() && text.contains("can be read by others"), "{text}");
    }
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("its mode");
    let old = ids(state);
    let new = answer(state, &["add"])["id"].as_str().expect("an id").to_owned();
    assert_eq!(ids(state), [new.clone(), old[0].clone()]);
    for wrong in [new.as_str(), "0123456789abcdef"] {
        assert_eq!(loam(state, &["remove", wrong]).status.code(), Some(3), "{wrong}");
    }
    answer(state, &["remove", &old[0]]);
    assert_eq!(ids(state), [new]);
    let text = std::fs::read_to_string(&path).expect("readable");
    assert!(text.contains("# kept\n"), "what a person wrote stays");
    let mode = std::fs::metadata(&path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
}
