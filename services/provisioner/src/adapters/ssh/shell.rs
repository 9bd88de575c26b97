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

/// How many of a script's last lines are kept, and how many bytes of them: fifty scripts fit into one journal.
const TAIL_LINES: usize = 12;
const TAIL_BYTES_MAX: usize = 1000;
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

    async fn run(&self, guest: &Guest, run: &ScriptToRun<'_>) -> Result<String, ShellError> {
        self.run_text(guest, &run.script.name, wrapped(run), run.timeout).await
    }

    async fn renew_identity(&self, guest: &Guest, name: &VmName) -> Result<(), ShellError> {
        self.run_our(guest, "renew-identity", renewal(name, &guest.uuid)).await
    }

    async fn flush(&self, guest: &Guest) -> Result<(), ShellError> {
        self.run_our(guest, "flush", FLUSH.into()).await
    }
}

impl RusshShell {
    /// Runs a text of our own with `sh`.
    async fn run_our(&self, guest: &Guest, name: &str, text: String) -> Result<(), ShellError> {
        self.run_text(guest, name, text, TEXT_MAX).await.map(drop).map_err(|error| match error {
            ShellError::ScriptFailed { name, status, output } => {
                ShellError::CommandFailed { name, status, output }
            }
            error => error,
        })
    }

    /// Runs a text with `sh`, and returns the end of its output; `name` is its name in an error.
    async fn run_text(
        &self,
        guest: &Guest,
        name: &str,
        text: String,
        within: Duration,
    ) -> Result<String, ShellError> {
        let session = Session::open(guest, Arc::clone(&self.key)).await?;
        let mut output = Output::default();
        let ran = tokio::time::timeout(within, session.shell(text, |bytes| output.push(bytes))).await;
        session.close().await;
        output.end_line();
        let (name, output) = (name.to_owned(), output.tail());
        match ran {
            Ok(Ok(Some(0))) => Ok(output),
            Ok(Ok(Some(status))) => Err(ShellError::ScriptFailed { name, status, output }),
            Ok(Ok(None)) => Err(broken(guest, &name, None)),
            Ok(Err(error)) => Err(broken(guest, &name, Some(error))),
            Err(_) => Err(ShellError::ScriptTimeout { name, within, output }),
        }
    }
}

fn broken(guest: &Guest, name: &str, error: Option<russh::Error>) -> ShellError {
    let cause = error.map_or_else(String::new, |error| format!(": {error}"));
    ShellError::Unreachable(format!(
        "the connection to {} broke while script {name} ran{cause}",
        guest.address
    ))
}

/// The last lines that a script wrote.
#[derive(Default)]
struct Output {
    unfinished: Vec<u8>,
    last: VecDeque<String>,
}

impl Output {
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
        if self.last.len() == TAIL_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    fn tail(&self) -> String {
        let text = self.last.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
        let from = text.len().saturating_sub(TAIL_BYTES_MAX);
        text[text.ceil_char_boundary(from)..].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_output_the_last_lines_are_kept_and_no_more_than_a_journal_bears() {
        let mut output = Output::default();
        output.push(b"first\n\nsecond\nwithout an end");
        output.end_line();
        assert_eq!(output.tail(), "first\nsecond\nwithout an end");
        for _ in 0..100 {
            output.push("\u{e4}".repeat(5000).as_bytes());
            output.push(b"\n");
        }
        output.push(b"last\n");
        let tail = output.tail();
        assert!(tail.len() <= TAIL_BYTES_MAX && tail.ends_with("\nlast"), "{} bytes", tail.len());
        assert!(output.last.len() <= TAIL_LINES);
    }
}
