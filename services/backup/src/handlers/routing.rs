//! Which host answers a command: a backup reads the disks of its VM where they are, a restore writes them where the new VM
//! is to be. What is about the repository any host can do.

use bus::ErrorReply;
use chassis::OnHost;
use contract::HostName;
use contract::backup::{RestoreBackupAsVm, RestoreBackupAsVmRefused, StartBackup, StartBackupRefused};
use contract::message::{Failure, FailureKind};
use contract::provisioner::{HostState, VmState, choose_host};

use super::Handlers;

fn unreachable(host: &HostName) -> Failure {
    let message = format!("host {host} is unreachable; `loam host list` shows since when");
    Failure { kind: FailureKind::Unavailable, message }
}

impl OnHost<Handlers> for StartBackup {
    async fn host(&self, handlers: &Handlers) -> Result<Option<HostName>, ErrorReply<StartBackupRefused>> {
        match handlers.state.provisioner.vm(&self.vm).await? {
            None => Err(ErrorReply::Refused(StartBackupRefused::UnknownVm(self.vm.clone()))),
            Some(vm) if vm.state == VmState::Unreachable => Err(unreachable(&vm.host).into()),
            Some(vm) => Ok(Some(vm.host)),
        }
    }
}

impl OnHost<Handlers> for RestoreBackupAsVm {
    async fn host(
        &self,
        handlers: &Handlers,
    ) -> Result<Option<HostName>, ErrorReply<RestoreBackupAsVmRefused>> {
        let hosts = handlers.state.provisioner.hosts().await?;
        let there = hosts.iter().filter(|host| host.state != HostState::Removed);
        let names: Vec<HostName> = there.map(|host| host.name.clone()).collect();
        let chosen = choose_host(self.host.as_ref(), &handlers.state.host, names);
        let chosen =
            chosen.map_err(|refused| ErrorReply::Refused(RestoreBackupAsVmRefused::Host(refused)))?;
        let is_away = hosts.iter().any(|host| host.name == chosen && host.state == HostState::Unreachable);
        if is_away && chosen != handlers.state.host {
            return Err(unreachable(&chosen).into());
        }
        Ok(Some(chosen))
    }
}
