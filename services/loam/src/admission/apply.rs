//! Brings a change to the servers, and finds out whether it is in effect.

use std::process::Stdio;
use std::time::Duration;

use bus::nats::{Trust, is_let_in};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

use super::servers::{BusServer, running};
use super::{Admission, AdmissionError};
use crate::state::StateDirError;

/// How long a server may take to read its settings; it takes milliseconds.
const IN_EFFECT_MAX: Duration = Duration::from_secs(10);
/// How long a person's program may take to bring settings to all servers.
const RELOAD_PROGRAM_MAX: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(50);

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Every server that runs has read its settings.
    InEffect,
    /// The settings are written; these servers have not read them, or cannot be asked.
    Written {
        /// URLs of servers, each with the reason.
        not_read_by: Vec<String>,
    },
}

impl Effect {
    /// Whether every server has read its settings.
    pub fn is_in_effect(&self) -> bool {
        *self == Effect::InEffect
    }

    /// What a person must do.
    pub fn advice(&self) -> Option<String> {
        let Effect::Written { not_read_by } = self else { return None };
        Some(format!(
            "the settings are written, but not in effect yet: bring them to every server and run `nats-server --signal \
             reload` there ({})",
            not_read_by.join("; ")
        ))
    }
}

impl Admission {
    /// Writes hosts and the settings of every server, and has them read.
    ///
    /// # Errors
    /// When files cannot be written; then nothing has changed for the servers.
    pub async fn apply(&mut self) -> Result<Effect, AdmissionError> {
        let now = chrono::Utc::now();
        self.hosts.drop_expired(now);
        self.hosts.write(&self.state)?;
        let keys = self.public_keys(now)?;
        self.servers.write_settings(&self.state, &keys)?;
        let mut is_asked = false;
        for server in self.servers.server.iter().filter(|server| server.is_ours) {
            is_asked |= self.signal(server)?;
        }
        if !self.servers.server.iter().all(|server| server.is_ours) {
            self.run_reload_program().await;
            is_asked = true;
        }
        // A server that does not run reads its settings when it starts.
        if !is_asked {
            return Ok(Effect::InEffect);
        }
        let seed = keys.probe().seed().expect("a pair that was made from a seed");
        let trust = Trust::of(self.servers.ca_file(&self.state).as_deref());
        let mut not_read_by = Vec::new();
        let urls = self.servers.local_url.as_ref().unwrap_or(&self.servers.url);
        for url in urls.split(',').map(str::trim) {
            if let Err(why) = self.wait_until_read(url, &seed, &trust).await {
                not_read_by.push(format!("{url}: {why}"));
            }
        }
        Ok(if not_read_by.is_empty() { Effect::InEffect } else { Effect::Written { not_read_by } })
    }

    /// Has our server read its settings; returns whether it runs.
    fn signal(&self, server: &BusServer) -> Result<bool, StateDirError> {
        let settings = server.settings(&self.state);
        let Some(pid) = running(&self.state, &settings) else { return Ok(false) };
        kill(Pid::from_raw(pid), Signal::SIGHUP).map(|()| true).or_else(|errno| match errno {
            nix::errno::Errno::ESRCH => Ok(false),
            errno => Err(StateDirError::disk("having the server read", &settings)(errno.into())),
        })
    }

    async fn run_reload_program(&self) {
        let Some(program) = &self.servers.reload_program else { return };
        let failed =
            |why: String| tracing::error!(program = %program.display(), why, "the bus was not reloaded");
        let mut command = tokio::process::Command::new(program);
        command.arg(self.state.nats()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match tokio::time::timeout(RELOAD_PROGRAM_MAX, command.kill_on_drop(true).status()).await {
            Ok(Ok(status)) if status.success() => {}
            Ok(Ok(status)) => failed(status.to_string()),
            Ok(Err(error)) => failed(error.to_string()),
            Err(_) => failed(format!("it did not end within {} s", RELOAD_PROGRAM_MAX.as_secs())),
        }
    }

    /// Waits until a server lets in the key that belongs to these settings; a server that nobody has read them is asked
    /// once.
    async fn wait_until_read(&self, url: &str, seed: &str, trust: &Trust) -> Result<(), String> {
        let is_reloaded =
            self.servers.server.iter().any(|server| server.is_ours) || self.servers.reload_program.is_some();
        let until = Instant::now() + if is_reloaded { IN_EFFECT_MAX } else { Duration::ZERO };
        loop {
            let why = match is_let_in(url, seed, trust).await {
                Ok(true) => return Ok(()),
                Ok(false) => "it has older settings".to_string(),
                Err(error) => contract::message::with_causes(&error),
            };
            if Instant::now() >= until {
                return Err(why);
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }
}
