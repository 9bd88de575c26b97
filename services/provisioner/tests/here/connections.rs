//! Connections to exports, passed to the reader of disks: what the table of exports has, and nothing else.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use chassis::{PassingError, request_descriptor};
use contract::OperationId;
use contract::provisioner::{ConnectToExport, DESCRIPTOR_SOCKET};
use operation::new_id;
use serde_json::json;

use crate::exports::{close, open, with_web};
use crate::support::Running;

const IN_TIME: Duration = Duration::from_secs(10);
/// How an NBD server greets.
const GREETING: &[u8] = b"NBDMAGIC";

fn socket(running: &Running) -> PathBuf {
    running.simulated.state.join(DESCRIPTOR_SOCKET)
}

async fn connect(
    running: &Running,
    operation: &OperationId,
    export: &str,
) -> Result<UnixStream, PassingError> {
    let wanted = ConnectToExport { operation_id: operation.clone(), export_name: export.into() };
    request_descriptor(&socket(running), &wanted, IN_TIME).await.map(UnixStream::from)
}

async fn refusal(running: &Running, request: serde_json::Value) -> String {
    match request_descriptor(&socket(running), &request, IN_TIME).await {
        Err(PassingError::Refused(why)) => why,
        other => panic!("{request} was not refused: {other:?}"),
    }
}

#[actix::test]
async fn a_connection_to_an_open_export_is_passed_while_it_is_open() {
    let running = with_web().await;
    let operation = new_id();
    connect(&running, &operation, "vda").await.expect_err("nothing is open yet");
    let opened = open(&running, &operation).await.expect("opened");
    let name = &opened.exports[0].export_name;
    let greet = async |running: &Running| {
        let mut stream = connect(running, &operation, name).await.expect("passed");
        stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(IN_TIME))).expect("set");
        let mut greeting = [0; 8];
        stream.read_exact(&mut greeting).expect("the server greets");
        assert_eq!(greeting, GREETING);
    };
    greet(&running).await;
    greet(&running).await;
    let running = running.restart().await;
    greet(&running).await;
    assert!(close(&running, &operation).await);
    let refused = connect(&running, &operation, name).await.expect_err("closed");
    assert!(refused.to_string().contains("is open for operation"), "{refused}");
}

#[actix::test]
async fn nothing_but_open_exports_of_the_operation_that_is_named_is_passed() {
    let running = with_web().await;
    let operation = new_id();
    let opened = open(&running, &operation).await.expect("opened");
    let export = &opened.exports[0];
    let (name, id) = (export.export_name.as_str(), operation.as_str());
    let other = new_id();
    let socket = export.socket.display().to_string();
    let names = [
        "",
        ".",
        "..",
        "vdb",
        "../exports",
        "/etc/shadow",
        "vda/../vda",
        "vda\0",
        " vda",
        "*",
        ">",
        &socket,
        &format!("../{id}/{name}"),
        &format!("{name}.sock"),
    ];
    for wrong in names {
        let why = refusal(&running, json!({"operation_id": id, "export_name": wrong})).await;
        assert!(why.starts_with("no export "), "{wrong:?}: {why}");
    }
    let why = refusal(&running, json!({"operation_id": other, "export_name": name})).await;
    assert!(why.starts_with("no export "), "{why}");
    for operation in
        ["", "..", "../x", "*", ">", "/", &format!("{id}/"), &format!("./{id}"), &id.to_lowercase()]
    {
        let why = refusal(&running, json!({"operation_id": operation, "export_name": name})).await;
        assert!(why.starts_with("the request cannot be read") || why.starts_with("no export "), "{why}");
    }
    for malformed in [
        json!(null),
        json!([id, name, "more"]),
        json!({"operation_id": id}),
        json!({"operation_id": id, "export_name": [name]}),
        json!({"operation_id": id, "export_name": name, "socket": "/run/libvirt/libvirt-sock"}),
    ] {
        let why = refusal(&running, malformed).await;
        assert!(why.starts_with("the request cannot be read"), "{why}");
    }
    connect(&running, &operation, name).await.expect("the right one is");
    close(&running, &operation).await;
}
