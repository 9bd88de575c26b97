//! The port `GuestShell` over SSH.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use russh::keys::PrivateKey;

use super::key::{self, SshKeyFileError};
use super::script::{FLUSH, wrapped};
use super::session::Session;
use crate::ports::{Guest, GuestShell, ScriptToRun, ShellError};

/// How many of a script's last lines a failure shows.
const TAIL_LINES: usize = 12;
/// A disk of the host that is busy takes a while to write what a guest held in memory.
const FLUSH_MAX: Duration = Duration::from_secs(300);
/// A longer line is cut here.
const LINE_BYTES_MAX: usize = 1000;

/// Runs scripts inside real guests.
pub struct RusshShell {
    key: Arc<PrivateKey>,
    authorized: String,
}

impl RusshShell {
    /// Reads our key, or creates one.
    ///
    /// # Errors
    /// When it cannot be read or created.
    pub fn open(key_file: &Path) -> Result<RusshShell, SshKeyFileError> {
        let key = key::read_or_create(key_file)?;
        let authorized = key.public_key().to_openssh()?;
        Ok(RusshShell { key: Arc::new(key), authorized })
    }
}

#[async_trait]
impl GuestShell for RusshShell {
    fn authorized_key(&self) -> &str {
        &self.authorized
    }

    async fn reach(&self, guest: &Guest) -> Result<String, ShellError> {
        let session = Session::open(guest, Arc::clone(&self.key)).await?;
        let host_key = session.host_key.clone();
        session.close().await;
        Ok(host_key)
    }

    async fn run(&self, guest: &Guest, run: &ScriptToRun<'_>) -> Result<(), ShellError> {
        let name = &run.script.name;
        let session = Session::open(guest, Arc::clone(&self.key)).await?;
        let mut output = Output::new(name);
        let ran =
            tokio::time::timeout(run.timeout, session.shell(wrapped(run), |bytes| output.push(bytes))).await;
        session.close().await;
        output.end_line();
        match ran {
            Ok(Ok(Some(0))) => Ok(()),
            Ok(Ok(Some(status))) => {
                Err(ShellError::ScriptFailed { name: name.clone(), status, tail: output.tail() })
            }
            Ok(Ok(None)) => Err(ShellError::Unreachable(format!(
                "the connection to {} broke while script {name} ran",
                guest.address
            ))),
            Ok(Err(error)) => Err(ShellError::Unreachable(format!(
                "the connection to {} broke while script {name} ran: {error}",
                guest.address
            ))),
            Err(_) => Err(ShellError::ScriptTimeout {
                name: name.clone(),
                within: run.timeout,
                tail: output.tail(),
            }),
        }
    }

    async fn flush(&self, guest: &Guest) -> Result<(), ShellError> {
        let failed = |reason: String| {
            ShellError::Unreachable(format!("the guest at {} has not written its disks: {reason}", guest.address))
        };
        let session = Session::open(guest, Arc::clone(&self.key)).await?;
        let flushed = tokio::time::timeout(FLUSH_MAX, session.shell(FLUSH.into(), |_| {})).await;
        session.close().await;
        match flushed {
            Ok(Ok(Some(0))) => Ok(()),
            Ok(Ok(Some(status))) => Err(failed(format!("`sync` ended with status {status}"))),
            Ok(Ok(None)) => Err(failed("the connection broke".into())),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!("`sync` took longer than {} s", FLUSH_MAX.as_secs()))),
        }
    }
}

/// The output of a script, line by line: to the log, and the last lines kept.
struct Output<'a> {
    script: &'a str,
    unfinished: Vec<u8>,
    last: VecDeque<String>,
}

impl Output<'_> {
    fn new(script: &str) -> Output<'_> {
        Output { script, unfinished: Vec::new(), last: VecDeque::new() }
    }

    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' || self.unfinished.len() >= LINE_BYTES_MAX {
                self.end_line();
            }
            if *byte != b'\n' {
                self.unfinished.push(*byte);
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.unfinished)).into_owned();
        if line.trim().is_empty() {
            return;
        }
        tracing::info!(script = self.script, "{line}");
        if self.last.len() == TAIL_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    fn tail(&self) -> String {
        self.last.iter().map(String::as_str).collect::<Vec<_>>().join(" | ")
    }
}
