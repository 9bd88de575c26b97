//! Which host answers a request: the one that a VM or a seed is on, or the one that it is to be created on.

use bus::ErrorReply;
use chassis::OnHost;
use contract::HostName;
use contract::message::Failure;
use contract::provisioner::{
    AddSeed, AddSeedRefused, CreateVm, CreateVmRefused, GetVm, GetVmSecrets, HostRefused, RemoveSeed,
    RemoveSeedRefused, RemoveVm, StartVm, StopVm, VmRefused,
};

use super::Handlers;

impl Handlers {
    /// The host that a command names, or the only one; fails where it is unreachable.
    async fn place<R>(
        &self,
        named: Option<&HostName>,
        refusal: fn(HostRefused) -> R,
    ) -> Result<Option<HostName>, ErrorReply<R>> {
        let installation = &self.state.installation;
        let host = installation.place(named).map_err(|refused| ErrorReply::Refused(refusal(refused)))?;
        Ok(Some(self.reachable(host).await?))
    }

    async fn reachable(&self, host: HostName) -> Result<HostName, Failure> {
        if host != self.state.host {
            self.state.installation.check_reachable(&host).await?;
        }
        Ok(host)
    }
}

/// A command about a VM goes to the VM's host.
macro_rules! at_the_vm {
    ($($request:ty),*) => {$(
        impl OnHost<Handlers> for $request {
            async fn host(&self, handlers: &Handlers) -> Result<Option<HostName>, ErrorReply<VmRefused>> {
                match handlers.state.host_of(&self.vm).await? {
                    Some(host) => Ok(Some(handlers.reachable(host).await?)),
                    None => Ok(None),
                }
            }
        }
    )*};
}

at_the_vm!(StartVm, StopVm, RemoveVm, GetVmSecrets);

impl OnHost<Handlers> for GetVm {
    async fn host(&self, handlers: &Handlers) -> Result<Option<HostName>, ErrorReply<VmRefused>> {
        match handlers.state.host_of(&self.vm).await? {
            // A VM of an unreachable host is shown as it was known last, here.
            Some(host) => Ok(handlers.reachable(host).await.ok()),
            None => Ok(None),
        }
    }
}

impl OnHost<Handlers> for CreateVm {
    async fn host(&self, handlers: &Handlers) -> Result<Option<HostName>, ErrorReply<CreateVmRefused>> {
        handlers.place(self.host.as_ref(), CreateVmRefused::Host).await
    }
}

impl OnHost<Handlers> for AddSeed {
    async fn host(&self, handlers: &Handlers) -> Result<Option<HostName>, ErrorReply<AddSeedRefused>> {
        handlers.place(self.host.as_ref(), AddSeedRefused::Host).await
    }
}

impl OnHost<Handlers> for RemoveSeed {
    /// Where no host is named and only one has the seed, that one.
    async fn host(&self, handlers: &Handlers) -> Result<Option<HostName>, ErrorReply<RemoveSeedRefused>> {
        if self.host.is_some() {
            return handlers.place(self.host.as_ref(), RemoveSeedRefused::Host).await;
        }
        let state = &handlers.state;
        let elsewhere = state.installation.hosts_with_seed(&self.name).await;
        let mut hosts = elsewhere.map_err(|error| error.to_failure())?;
        if state.registry.snapshot().await?.seed(&self.name).is_some() {
            hosts.push(state.host.clone());
            hosts.sort();
        }
        match hosts.as_slice() {
            [] => Ok(None),
            [only] => Ok(Some(handlers.reachable(only.clone()).await?)),
            _ => Err(ErrorReply::Refused(RemoveSeedRefused::Host(HostRefused::Required { hosts }))),
        }
    }
}
