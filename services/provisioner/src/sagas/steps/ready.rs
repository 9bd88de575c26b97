//! Waiting until a guest answers, and saying how far it came when it does not.
//!
//! ```text
//!   starts --> has an address (DHCP) --> its agent answers --> SSH accepts us --> ready
//! ```

use std::net::IpAddr;
use std::path::Path;
use std::time::Instant;

use contract::message::with_causes;
use provisioner_domain::{PowerState, VmRecord};
use saga::{Outputs, StepError};
use serde::{Deserialize, Serialize};

use super::{VmCommand, hypervisor_error};
use crate::metrics;
use crate::ports::{Guest, HypervisorErrorKind, ShellError};
use crate::sagas::Context;
use crate::state::ServiceState;
use crate::vm_spec::console_in;

/// How much of the console log is put into a failure.
const CONSOLE_LINES: usize = 12;
const CONSOLE_BYTES: usize = 2000;

/// A guest that answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::sagas) struct Ready {
    pub(in crate::sagas) address: IpAddr,
    pub(in crate::sagas) host_key: String,
}

/// How far a guest has come; each is a sentence for the failure.
enum Progress {
    NoAddress,
    AgentSilent(IpAddr),
    NoShell(IpAddr, String),
    NoHypervisor(String),
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Progress::NoAddress => f.write_str("no DHCP lease was seen"),
            Progress::AgentSilent(address) => {
                write!(
                    f,
                    "it has address {address}, but its guest agent is silent (is qemu-guest-agent in the seed?)"
                )
            }
            Progress::NoShell(address, reason) => {
                write!(f, "its agent answers, but SSH at {address} does not accept us: {reason}")
            }
            Progress::NoHypervisor(reason) => write!(f, "the hypervisor does not answer: {reason}"),
        }
    }
}

/// Waits until the locked record's guest answers.
pub(in crate::sagas) async fn ready<C: VmCommand>(
    context: &Context<C>,
    outputs: &Outputs,
) -> Result<Ready, StepError> {
    let (state, record) = (&context.state, outputs.get::<VmRecord>("lock")?);
    let started = Instant::now();
    let until = started + state.limits.vm_ready_max;
    loop {
        let progress = match check(state, &record).await? {
            Ok(ready) => {
                metrics::READY_SECONDS.record(started.elapsed().as_secs_f64());
                return Ok(ready);
            }
            Err(progress) => progress,
        };
        let failed = |reason: String| async {
            let tail = console_tail(&console_in(&state.disks.folder(record.name()))).await;
            Err(StepError::Permanent(reason + &tail))
        };
        match state.hypervisor.power(&record.identity.uuid).await {
            Ok(PowerState::Running) => {}
            Ok(PowerState::Paused(reason)) => return failed(format!("it was paused: {reason}")).await,
            Ok(PowerState::Off) => return failed("it went off while it was waited for".into()).await,
            Ok(PowerState::Missing) => {
                return failed("the hypervisor lost it while it was waited for".into()).await;
            }
            Err(error) if error.kind == HypervisorErrorKind::Unavailable => {}
            Err(error) => return Err(hypervisor_error(error)),
        }
        if context.cancel.is_cancelled() {
            return Err(StepError::Permanent("cancelled while waiting for it to answer".into()));
        }
        if Instant::now() >= until {
            let seconds = state.limits.vm_ready_max.as_secs();
            return failed(format!("it did not answer within {seconds} s: {progress}")).await;
        }
        tokio::select! {
            () = tokio::time::sleep(state.limits.guest_poll_interval) => {}
            () = context.cancel.cancelled() => {}
        }
    }
}

/// One check: ready, or how far it is; an error where waiting does not help.
async fn check(state: &ServiceState, record: &VmRecord) -> Result<Result<Ready, Progress>, StepError> {
    let (uuid, mac) = (&record.identity.uuid, &record.identity.mac);
    let address = match state.hypervisor.address(uuid, mac).await {
        Ok(Some(address)) => address,
        Err(error) if error.kind == HypervisorErrorKind::Unavailable => {
            return Ok(Err(Progress::NoHypervisor(with_causes(&error))));
        }
        // Any other error: it went off, which the check of its power state says better.
        Ok(None) | Err(_) => return Ok(Err(Progress::NoAddress)),
    };
    match state.hypervisor.agent_answers(uuid).await {
        Ok(true) => {}
        Err(error) if error.kind == HypervisorErrorKind::Unavailable => {
            return Ok(Err(Progress::NoHypervisor(with_causes(&error))));
        }
        Ok(false) | Err(_) => return Ok(Err(Progress::AgentSilent(address))),
    }
    match state.shell.reach(&guest_of(record, address)).await {
        Ok(host_key) => Ok(Ok(Ready { address, host_key })),
        Err(ShellError::Unreachable(reason)) => Ok(Err(Progress::NoShell(address, reason))),
        // It answers, which is all that is needed here. No script is sent to a guest with another host key.
        Err(ShellError::HostKeyChanged { known, seen, .. }) => {
            tracing::warn!(vm = %record.name(), known, seen, "its SSH host key is another one than before");
            Ok(Ok(Ready { address, host_key: known }))
        }
        Err(other) => Err(StepError::Permanent(with_causes(&other))),
    }
}

/// A VM's guest, as the shell needs it.
pub(in crate::sagas) fn guest_of(record: &VmRecord, address: IpAddr) -> Guest {
    Guest { address, uuid: record.identity.uuid.clone(), host_key: record.host_key.clone() }
}

/// The end of a VM's console log, as the end of a sentence.
async fn console_tail(log: &Path) -> String {
    let Ok(bytes) = tokio::fs::read(log).await else {
        return String::new();
    };
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(CONSOLE_BYTES)..]).into_owned();
    let plain: String = text.chars().filter(|c| *c == '\n' || !c.is_control()).collect();
    let lines: Vec<&str> = plain.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let tail = &lines[lines.len().saturating_sub(CONSOLE_LINES)..];
    if tail.is_empty() {
        "; its console log is empty".into()
    } else {
        format!("; its console log ended with: {}", tail.join(" | "))
    }
}
