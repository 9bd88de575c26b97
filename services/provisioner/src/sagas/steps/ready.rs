//! Waiting until a machine answers, and saying where it stands when it does not.
//!
//! ```text
//!   starts --> has an address (DHCP) --> its agent answers --> SSH lets us in --> ready
//! ```

use std::net::IpAddr;
use std::path::Path;
use std::time::Instant;

use provisioner_domain::VmRecord;
use saga::Trouble;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::machine::console_in;
use super::{ServiceState, of_hypervisor};
use crate::metrics;
use crate::ports::{Guest, HypervisorError, Power, ShellError};

/// As much of the console as is put into a failure.
const CONSOLE_LINES: usize = 12;
const CONSOLE_BYTES: usize = 2000;

/// A machine that answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ready {
    pub(super) address: IpAddr,
    pub(super) host_key: String,
}

/// How far a machine has come; each is a sentence for the failure.
enum Stage {
    NoAddress,
    AgentSilent(IpAddr),
    NoShell(IpAddr, String),
    Silent(String),
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Stage::NoAddress => f.write_str("no DHCP lease was seen"),
            Stage::AgentSilent(address) => {
                write!(
                    f,
                    "it has address {address}, but its guest agent is silent (is qemu-guest-agent in the seed?)"
                )
            }
            Stage::NoShell(address, reason) => {
                write!(f, "its agent answers, but SSH at {address} does not let us in: {reason}")
            }
            Stage::Silent(reason) => write!(f, "the hypervisor does not tell: {reason}"),
        }
    }
}

/// Waits until a machine answers.
pub(super) async fn wait_ready(
    state: &ServiceState,
    record: &VmRecord,
    cancel: &CancellationToken,
) -> Result<Ready, Trouble> {
    let begun = Instant::now();
    let until = begun + state.limits.ready_within;
    loop {
        let stage = match look(state, record).await? {
            Ok(ready) => {
                metrics::READY_SECONDS.record(started.elapsed().as_secs_f64());
                return Ok(ready);
            }
            Err(stage) => stage,
        };
        let failed = |reason: String| async move {
            let tail = console_tail(&console_in(&state.disks.folder(record.name().as_str()))).await;
            Err(Trouble::Final(format!("{reason}{tail}")))
        };
        match state.hypervisor.power(&record.identity.uuid).await {
            Ok(Some(Power::Running)) | Err(HypervisorError::Unavailable(_)) => {}
            Ok(Some(Power::Off)) => return failed("it went off while it was waited for".into()).await,
            Ok(None) => return failed("the hypervisor forgot it while it was waited for".into()).await,
            Err(error) => return Err(of_hypervisor(error)),
        }
        if cancel.is_cancelled() {
            return Err(Trouble::Final("given up while waiting for it to answer".into()));
        }
        if Instant::now() >= until {
            let seconds = state.limits.ready_within.as_secs();
            return failed(format!("it did not answer within {seconds} s: {stage}")).await;
        }
        tokio::select! {
            () = tokio::time::sleep(state.limits.look_again) => {}
            () = cancel.cancelled() => {}
        }
    }
}

/// One look: ready, or how far it is; an error where waiting does not help.
async fn look(state: &ServiceState, record: &VmRecord) -> Result<Result<Ready, Stage>, Trouble> {
    let (uuid, mac) = (&record.identity.uuid, &record.identity.mac);
    let address = match state.hypervisor.address(uuid, mac).await {
        Ok(Some(address)) => address,
        Ok(None) => return Ok(Err(Stage::NoAddress)),
        Err(HypervisorError::Unavailable(reason)) => return Ok(Err(Stage::Silent(reason))),
        // It went off: the look at its power says it better.
        Err(_) => return Ok(Err(Stage::NoAddress)),
    };
    match state.hypervisor.agent_answers(uuid).await {
        Ok(true) => {}
        Ok(false) | Err(HypervisorError::AgentSilent(_)) => return Ok(Err(Stage::AgentSilent(address))),
        Err(HypervisorError::Unavailable(reason)) => return Ok(Err(Stage::Silent(reason))),
        Err(_) => return Ok(Err(Stage::AgentSilent(address))),
    }
    match state.shell.reach(&guest_of(record, address)).await {
        Ok(host_key) => Ok(Ok(Ready { address, host_key })),
        Err(ShellError::Unreachable(reason)) => Ok(Err(Stage::NoShell(address, reason))),
        // It answers, which is all that is asked here. Nothing is said to it; whoever has something to say will not.
        Err(ShellError::HostKeyChanged { known, seen, .. }) => {
            tracing::warn!(vm = %record.name(), known, seen, "it shows another SSH host key than before");
            let host_key = known;
            Ok(Ok(Ready { address, host_key }))
        }
        Err(other) => Err(Trouble::Final(other.to_string())),
    }
}

/// A machine's guest, as the shell needs it.
pub(super) fn guest_of(record: &VmRecord, address: IpAddr) -> Guest {
    Guest { address, uuid: record.identity.uuid.clone(), host_key: record.host_key.clone() }
}

/// The end of what a machine's console said, as the end of a sentence.
async fn console_tail(log: &Path) -> String {
    let Ok(bytes) = tokio::fs::read(log).await else {
        return String::new();
    };
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(CONSOLE_BYTES)..]).into_owned();
    let plain: String = text.chars().filter(|letter| *letter == '\n' || !letter.is_control()).collect();
    let lines: Vec<&str> = plain.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let tail = &lines[lines.len().saturating_sub(CONSOLE_LINES)..];
    if tail.is_empty() {
        "; its console said nothing".into()
    } else {
        format!("; its console ended with: {}", tail.join(" | "))
    }
}
