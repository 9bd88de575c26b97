//! Anybody else's client: a Python program with a stock NATS library, in JSON, with an operator's key.

use std::process::Stdio;

use system_tests::{Installation, image};
use tokio::process::Command;

const SCRIPT: &str = include_str!("people.py");

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_python_client_creates_backs_up_and_restores_in_json() {
    let installation = Installation::simulated().await;
    let image = image(installation.state(), 5);
    let client = installation.state().join("client.toml");
    // The interpreter that has the library; tests/run says which.
    let python = std::env::var("LOAM_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let output = Command::new(&python)
        .args(["-c", SCRIPT])
        .arg(client)
        .arg(&image.path)
        .arg(&image.sha256)
        .stdin(Stdio::null())
        .output()
        .await
        .expect("python runs");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    let said = String::from_utf8(output.stdout).expect("text");
    for line in [
        "created web",
        "backed up web",
        "restored web2",
        "every endpoint has its schemas",
        "closed to the rest",
    ] {
        assert!(said.contains(line), "{line:?} is missing in {said}\n{stderr}");
    }
}
