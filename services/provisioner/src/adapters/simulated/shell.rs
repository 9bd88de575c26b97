//! The simulated inside of a VM: scripts are noted on its disk instead of being run.

use std::sync::Arc;

use async_trait::async_trait;
use contract::VmName;
use contract::message::with_causes;
use sha2::{Digest, Sha256};

use super::guest::change;
use super::hypervisor::{SimulatedCall, SimulatedHypervisor};
use crate::ports::{Guest, GuestShell, ScriptToRun, ShellError, VmSpec};

/// As short as what a real shell returns.
const OUTPUT_CHARS_MAX: usize = 200;

/// The shell of simulated guests.
pub struct SimulatedShell {
    hypervisor: Arc<SimulatedHypervisor>,
}

impl SimulatedShell {
    /// A shell into the VMs of a simulation.
    pub fn new(hypervisor: Arc<SimulatedHypervisor>) -> SimulatedShell {
        SimulatedShell { hypervisor }
    }

    async fn log_in(&self, guest: &Guest) -> Result<VmSpec, ShellError> {
        let unreachable = |reason: String| ShellError::Unreachable(reason);
        let faults = self.hypervisor.faults();
        faults.check(SimulatedCall::Shell).await.map_err(|error| unreachable(with_causes(&error)))?;
        match self.hypervisor.running(&guest.uuid) {
            Some((spec, address))
                if address == guest.address && !faults.has_no_effect(SimulatedCall::Shell) =>
            {
                let seen = host_key(&spec);
                match &guest.host_key {
                    Some(known) if *known != seen => {
                        Err(ShellError::HostKeyChanged { address, seen, known: known.clone() })
                    }
                    _ => Ok(spec),
                }
            }
            _ => Err(unreachable(format!("no guest answers at {}", guest.address))),
        }
    }
}

fn host_key(spec: &VmSpec) -> String {
    format!("simulated {}-{}", spec.uuid, spec.mark.cloud_init_generation)
}

/// What a careless script writes.
fn variables(run: &ScriptToRun<'_>) -> String {
    let lines: Vec<String> = run.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    lines.join("\n").chars().take(OUTPUT_CHARS_MAX).collect()
}

/// A script whose last line is `exit` and a number ends so; any other succeeds.
fn status(text: &str) -> u32 {
    let last = text.lines().last().unwrap_or_default();
    last.strip_prefix("exit ").and_then(|status| status.parse().ok()).unwrap_or(0)
}

#[async_trait]
impl GuestShell for SimulatedShell {
    fn authorized_key(&self) -> &str {
        "simulated"
    }

    async fn reach(&self, guest: &Guest) -> Result<String, ShellError> {
        Ok(host_key(&self.log_in(guest).await?))
    }

    async fn run(&self, guest: &Guest, run: &ScriptToRun<'_>) -> Result<String, ShellError> {
        let spec = self.log_in(guest).await?;
        let digest = hex::encode(Sha256::digest(run.script.text.as_bytes()));
        let line = format!("{} {} {}", run.at, run.script.name, &digest[..12]);
        let noted = change(&spec, |note| {
            if !note.scripts.contains(&line) {
                note.scripts.push(line.clone());
            }
        });
        noted.await.map_err(|error| ShellError::Unreachable(with_causes(&error)))?;
        let output = format!("{} was not run: the guest is simulated\n{}", run.script.name, variables(run));
        match status(&run.script.text) {
            0 => Ok(output),
            status => Err(ShellError::ScriptFailed { name: run.script.name.clone(), status, output }),
        }
    }

    async fn renew_identity(&self, guest: &Guest, name: &VmName) -> Result<(), ShellError> {
        self.log_in(guest).await?;
        self.hypervisor.identity_renewed(&guest.uuid, name);
        Ok(())
    }

    async fn flush(&self, guest: &Guest) -> Result<(), ShellError> {
        self.log_in(guest).await?;
        self.hypervisor.flushed(&guest.uuid);
        Ok(())
    }
}
