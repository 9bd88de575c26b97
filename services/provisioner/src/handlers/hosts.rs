//! Answers about hosts. Any instance answers: what belongs to all hosts is in tables.

use std::sync::Arc;

use bus::{ErrorReply, IncomingRequest, TableError};
use contract::message::{Failure, NeverRefused};
use contract::provisioner::{
    ForgetVm, ForgetVmRefused, ForgottenVm, Host, HostState, ListHosts, RemoveHost, RemoveHostRefused,
    VmChanged,
};

use super::Handlers;

fn failed(error: TableError) -> Failure {
    error.to_failure()
}

/// A removed host is listed until its last VM is forgotten.
pub(crate) async fn list_hosts(
    handlers: Arc<Handlers>,
    _: IncomingRequest<ListHosts>,
) -> Result<Vec<Host>, ErrorReply<NeverRefused>> {
    let installation = &handlers.state.installation;
    installation.refresh().await.map_err(failed)?;
    let vms = installation.vms_elsewhere().await.map_err(failed)?;
    let now = chrono::Utc::now();
    let mut hosts: Vec<Host> = installation.hosts().iter().map(|host| host.view(now)).collect();
    for host in hosts.iter_mut().filter(|host| host.state == HostState::Removed) {
        host.vms = vms.iter().filter(|vm| vm.host == host.name).count() as u32;
    }
    hosts.retain(|host| host.state != HostState::Removed || host.vms > 0);
    Ok(hosts)
}

pub(crate) async fn remove_host(
    handlers: Arc<Handlers>,
    call: IncomingRequest<RemoveHost>,
) -> Result<Host, ErrorReply<RemoveHostRefused>> {
    let (installation, host, now) = (&handlers.state.installation, call.request.host, chrono::Utc::now());
    let removed = installation.remove(&host, now).await.map_err(failed)?;
    installation.refresh().await.map_err(failed)?;
    match removed {
        None => Err(ErrorReply::Refused(RemoveHostRefused::UnknownHost(host))),
        Some(record) if record.state(now) == HostState::Ready => {
            Err(ErrorReply::Refused(RemoveHostRefused::Reporting(host)))
        }
        Some(record) => {
            tracing::info!(%host, caller = %call.caller, "a host was removed");
            Ok(record.view(now))
        }
    }
}

pub(crate) async fn forget_vm(
    handlers: Arc<Handlers>,
    call: IncomingRequest<ForgetVm>,
) -> Result<ForgottenVm, ErrorReply<ForgetVmRefused>> {
    let (state, ForgetVm { host, vm }) = (&handlers.state, call.request);
    state.installation.refresh().await.map_err(failed)?;
    let hosts = state.installation.hosts();
    // A VM of a host of which nothing is known any more can be forgotten, too.
    let known = hosts.iter().find(|known| known.name == host);
    if host == state.host || known.is_some_and(|known| known.removed.is_none()) {
        return Err(ErrorReply::Refused(ForgetVmRefused::NotRemoved(host)));
    }
    let Some(forgotten) = state.installation.forget(&host, &vm).await.map_err(failed)? else {
        return Err(ErrorReply::Refused(ForgetVmRefused::UnknownVm { host, vm }));
    };
    tracing::warn!(%host, %vm, caller = %call.caller, "a VM of a removed host was forgotten");
    let gone = VmChanged { host, uuid: forgotten.uuid.clone(), name: vm, vm: None };
    if let Err(error) = state.bus.publish(&gone).await {
        tracing::debug!(%error, "an event was not published");
    }
    Ok(ForgottenVm { vm: forgotten })
}
