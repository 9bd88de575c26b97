//! Connections to NBD servers, passed to the backup service: its user cannot open their sockets.
//!
//! The table of disk exports decides: who names an operation and an export that is open for it gets a connection, anything
//! else is refused. No path is made of what was asked.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use chassis::DescriptorServer;
use contract::message::with_causes;
use contract::provisioner::ConnectToExport;
use tokio::net::UnixStream;

use crate::actors::ExportKeeperHandle;
use crate::ports::DiskReader;

/// A local socket answers at once, or no server listens.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// Passes connections until the server is dropped.
pub(crate) fn pass(reader: DiskReader, exports: ExportKeeperHandle) -> anyhow::Result<DescriptorServer> {
    DescriptorServer::open(&reader.socket, reader.uid, move |wanted: ConnectToExport| {
        let exports = exports.clone();
        async move { connection(&exports, wanted).await }
    })
}

async fn connection(exports: &ExportKeeperHandle, wanted: ConnectToExport) -> Result<OwnedFd, String> {
    let ConnectToExport { operation_id, export_name } = wanted;
    let found = exports.find(operation_id.clone(), export_name.clone()).await;
    match found.map_err(|error| with_causes(&error))? {
        Some(socket) => {
            connect(&socket).await.map_err(|error| format!("connecting to its NBD server: {error}"))
        }
        None => Err(format!("no export {export_name:?} is open for operation {operation_id}")),
    }
}

async fn connect(socket: &Path) -> std::io::Result<OwnedFd> {
    let stream = tokio::time::timeout(CONNECT_MAX, UnixStream::connect(socket)).await??;
    Ok(stream.into_std()?.into())
}
