//! The port `GuestShell` over SSH.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contract::VmName;
use russh::keys::PrivateKey;

use super::identity::renewal;
use super::key::{self, SshKeyFileError};
use super::script::{FLUSH, wrapped};
use super::session::Session;
use crate::ports::{Guest, GuestShell, ScriptToRun, ShellError};

/// How many of a script's last lines a failure shows.
const TAIL_LINES: usize = 12;
/// A disk of the host that is busy takes a while to write what a guest held in memory.
const TEXT_MAX: Duration = Duration::from_secs(300);
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
        self.run_text(guest, &run.script.name, wrapped(run), run.timeout).await
    }

    async fn renew_identity(&self, guest: &Guest, name: &VmName) -> Result<(), ShellError> {
        self.run_text(guest, "renew-identity", renewal(name, &guest.uuid), TEXT_MAX).await
    }

    async fn flush(&self, guest: &Guest) -> Result<(), ShellError> {
        self.run_text(guest, "flush", FLUSH.into(), TEXT_MAX).await
    }
}

impl RusshShell {
    /// Runs a text with `sh`; `name` is its name in an error.
    async fn run_text(
        &self,
        guest: &Guest,
        name: &str,
        text: String,
        within: Duration,
    ) -> Result<(), ShellError> {
        let session = Session::open(guest, Arc::clone(&self.key)).await?;
        let mut output = Output::new(name);
        let ran = tokio::time::timeout(within, session.shell(text, |bytes| output.push(bytes))).await;
        session.close().await;
        output.end_line();
        let (name, tail) = (name.to_owned(), output.tail());
        match ran {
            Ok(Ok(Some(0))) => Ok(()),
            Ok(Ok(Some(status))) => Err(ShellError::ScriptFailed { name, status, tail }),
            Ok(Ok(None)) => Err(broken(guest, &name, None)),
            Ok(Err(error)) => Err(broken(guest, &name, Some(error))),
            Err(_) => Err(ShellError::ScriptTimeout { name, within, tail }),
        }
    }
}

fn broken(guest: &Guest, name: &str, error: Option<russh::Error>) -> ShellError {
    let cause = error.map_or_else(String::new, |error| format!(": {error}"));
    ShellError::Unreachable(format!("the connection to {} broke while script {name} ran{cause}", guest.address))
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
