//! `loam repository serve`: a disk of a snapshot over NBD, until Ctrl-C.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backup_export::nbd::{Export, ListenAddress, NbdServer, ServerSettings};
use backup_export::overlay::{BLOCK_BYTES, FillSettings, Overlay, OverlaySettings};
use clap::Args;
use serde::Serialize;

use super::access::Access;
use super::answer::Answer;
use super::errors;
use super::snapshot_arg::SnapshotArg;
use super::work::{CommandContext, bar_of};
use crate::cli::exit::CliError;
use crate::stdio;

const DRAW_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(in crate::cli) struct ServeArgs {
    #[command(flatten)]
    snapshot: SnapshotArg,
    /// Name of the disk and of the export
    #[arg(long, value_name = "NAME")]
    disk: String,
    /// Unix socket to listen on, for its owner only (default: one in a new directory)
    #[arg(long, value_name = "PATH", conflicts_with = "listen")]
    socket: Option<PathBuf>,
    /// Loopback address to listen on; port 0 lets the system choose
    #[arg(long, value_name = "127.0.0.1:PORT")]
    listen: Option<SocketAddr>,
    /// Allow writes: they go to this file, and the snapshot stays as it is
    #[arg(long, value_name = "FILE")]
    overlay: Option<PathBuf>,
    /// Copy the disk into the overlay in the background, until the file is the whole disk as a raw image
    #[arg(long, requires = "overlay")]
    fill: bool,
    #[command(flatten)]
    access: Access,
}

#[derive(Serialize)]
struct RunningServer {
    uri: String,
    snapshot: String,
    disk: String,
    size_bytes: u64,
    writable: bool,
}

pub(super) async fn run(args: ServeArgs, work: &CommandContext) -> Result<(), CliError> {
    let repository = args.access.open_to_read(work).await?;
    let (snapshot, disk) = args.snapshot.open_disk(&repository, &args.disk, work).await?;
    let size_bytes = disk.size_bytes();
    let overlay = match &args.overlay {
        None => None,
        Some(path) => {
            let id = format!("{}/{}/{}", repository.id(), snapshot.id, args.disk);
            let settings = OverlaySettings { path: path.clone(), id };
            Some(work.wait(Overlay::open(&settings, Arc::clone(&disk))).await?)
        }
    };
    let export = match &overlay {
        None => Export::read_only(&args.disk, disk),
        Some(overlay) => Export::writable(&args.disk, Arc::clone(overlay)),
    };
    let export = export.map_err(errors::of)?;
    let (listen, _folder) = place(&args)?;
    let server = work.wait(NbdServer::start(&listen, vec![export], ServerSettings::default())).await?;
    let serving = RunningServer {
        uri: server.uri(&args.disk),
        snapshot: snapshot.id.to_string(),
        disk: args.disk.clone(),
        size_bytes,
        writable: overlay.is_some(),
    };
    // Programs read this line and go on; the exit code says what happens later.
    Answer::new(serving).give(work.json, |serving, text| {
        text.line(&serving.uri);
    })?;
    if !work.json {
        stdio::note("serving until Ctrl-C");
    }
    let mut outcome = match overlay.as_ref().filter(|_| args.fill) {
        Some(overlay) => filled(overlay, work).await,
        None => Ok(()),
    };
    if outcome.is_ok() {
        work.cancel.cancelled().await;
    }
    server.stop().await;
    if let Some(overlay) = overlay {
        // Stopped in order: no write that was confirmed is lost.
        outcome = outcome.and(overlay.flush().await.map_err(errors::of));
    }
    outcome.map_err(CliError::after_answer)
}

/// Where to listen, and the folder made for it.
fn place(args: &ServeArgs) -> Result<(ListenAddress, Option<tempfile::TempDir>), CliError> {
    match (&args.socket, args.listen) {
        (Some(path), _) => Ok((ListenAddress::Unix(path.clone()), None)),
        (None, Some(address)) => Ok((ListenAddress::Tcp(address), None)),
        (None, None) => {
            let made = tempfile::Builder::new().prefix("loam-").tempdir();
            let folder =
                made.map_err(|error| errors::while_doing("making a folder for the socket", error))?;
            let socket = Path::join(folder.path(), "nbd.sock");
            Ok((ListenAddress::Unix(socket), Some(folder)))
        }
    }
}

/// Fills until the disk is complete or the command is cancelled.
async fn filled(overlay: &Arc<Overlay>, work: &CommandContext) -> Result<(), CliError> {
    let bar = bar_of("filling", overlay.presence().total_blocks * BLOCK_BYTES);
    let mut finished = std::pin::pin!(overlay.fill(FillSettings::default()).finished());
    let mut ticks = tokio::time::interval(DRAW_EVERY);
    let outcome = loop {
        tokio::select! {
            biased;
            () = work.cancel.cancelled() => break Ok(()),
            done = &mut finished => break done.map_err(errors::of),
            _ = ticks.tick() => bar.set_position(overlay.presence().present_blocks * BLOCK_BYTES),
        }
    };
    bar.finish_and_clear();
    if outcome.is_ok() && overlay.presence().is_complete() {
        stdio::note(format_args!("{} holds the whole disk now", overlay.path().display()));
    }
    outcome
}
