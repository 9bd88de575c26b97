//! The reader of repositories that is not ours.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Runs the reader, with the interpreter that the test run sets in the environment.
pub(crate) fn read(store: &Path, kind_of_secret: &str, secret: &Path) -> Output {
    let python = std::env::var("LOAM_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/independent.py");
    Command::new(python).arg("-B").arg(program).arg(store).arg(kind_of_secret).arg(secret).output().unwrap()
}

/// What it printed.
pub(crate) fn parsed(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}
