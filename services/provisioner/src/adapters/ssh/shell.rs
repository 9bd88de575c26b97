//! The port `GuestShell` over SSH.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use russh::keys::PrivateKey;

use super::key::{self, KeyError};
use super::line::Line;
use super::script::wrapped;
use crate::ports::{Guest, GuestShell, ScriptRun, ShellError};

/// As many of a script's last lines as a failure tells.
const TAIL_LINES: usize = 12;
/// A line without an end is cut here.
const LINE_BYTES_MAX: usize = 1000;

/// Enters real guests.
pub struct RusshShell {
    key: Arc<PrivateKey>,
    authorized: String,
}

impl RusshShell {
    /// Takes up our key, or makes one.
    ///
    /// # Errors
    /// When it cannot be read or made.
    pub fn open(key_file: &Path) -> Result<RusshShell, KeyError> {
        let key = key::ours(key_file)?;
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
        let line = Line::open(guest, Arc::clone(&self.key)).await?;
        let host_key = line.host_key.clone();
        line.close().await;
        Ok(host_key)
    }

    async fn run(&self, guest: &Guest, run: &ScriptRun<'_>) -> Result<(), ShellError> {
        let name = &run.script.name;
        let line = Line::open(guest, Arc::clone(&self.key)).await?;
        let mut words = Words::new(name);
        let ran = tokio::time::timeout(run.within, line.shell(wrapped(run), |bytes| words.hear(bytes))).await;
        line.close().await;
        words.end();
        match ran {
            Ok(Ok(Some(0))) => Ok(()),
            Ok(Ok(Some(status))) => {
                Err(ShellError::Script { name: name.clone(), status, tail: words.tail() })
            }
            Ok(Ok(None)) => Err(ShellError::Unreachable(format!(
                "the line to {} broke while script {name} ran",
                guest.address
            ))),
            Ok(Err(error)) => Err(ShellError::Unreachable(format!(
                "the line to {} broke while script {name} ran: {error}",
                guest.address
            ))),
            Err(_) => Err(ShellError::Slow { name: name.clone(), within: run.within, tail: words.tail() }),
        }
    }
}

/// What a script writes, line by line: to the log, and the last of it kept.
struct Words<'a> {
    script: &'a str,
    unfinished: Vec<u8>,
    last: VecDeque<String>,
}

impl Words<'_> {
    fn new(script: &str) -> Words<'_> {
        Words { script, unfinished: Vec::new(), last: VecDeque::new() }
    }

    fn hear(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' || self.unfinished.len() >= LINE_BYTES_MAX {
                self.end();
            }
            if *byte != b'\n' {
                self.unfinished.push(*byte);
            }
        }
    }

    fn end(&mut self) {
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
