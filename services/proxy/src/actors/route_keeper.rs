//! The RouteKeeper knows the VMs and their domains, and puts a new route table in force at every change. It starts from
//! the stored VMs, applies `vm_changed` events, and takes over the whole list that the worker `refresh_routes` reads
//! periodically, because events can be lost. After a crash, the stored row and the list restore everything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::fut::{ActorFutureExt, WrapFuture};
use actix::{Actor, Addr, AsyncContext, Context, Handler, Message};
use actor::TracedMessage;
use bus::{Bus, Table, TableError};
use chassis::Waker;
use contract::message::with_causes;
use contract::provisioner::VmChanged;
use contract::proxy::{RouteRow, RouteTarget, Routes};
use contract::{NoPrevious, Stored, VmUuid, bucket};
use futures::StreamExt;
use proxy_domain::{Reach, RouteTable, UpstreamState, UpstreamVm, claims};
use serde::{Deserialize, Serialize};

use crate::ports::Frontend;

/// A burst of events, and the requests meanwhile.
const MAILBOX: usize = 128;
/// The pause before subscribing again, after the subscription failed or ended.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The one row of the table.
const ROW: &str = "vms";

/// Keeps the route table.
pub struct RouteKeeper {
    bus: Bus,
    frontend: Arc<dyn Frontend>,
    vms: BTreeMap<VmUuid, UpstreamVm>,
    reach: Reach,
    table: Table<KnownVms>,
    /// Counts events, so that a list requested before an event does not undo it.
    changes: u64,
    /// Makes the next refresh come at once.
    refresh: Waker,
}

/// The row: the VMs that were known last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownVms(pub Vec<UpstreamVm>);

impl Stored for KnownVms {
    const VERSION: u16 = 1;
    type Previous = NoPrevious;

    fn migrate(previous: NoPrevious) -> Self {
        match previous {}
    }
}

/// Asks for the route of each domain.
#[derive(Message)]
#[rtype(result = "Routes")]
pub(crate) struct GetRoutes;

/// Asks how many changes were received so far; [`ReplaceVms`] names the number.
#[derive(Message)]
#[rtype(result = "u64")]
pub(crate) struct GetVmEventCount;

/// Takes over a list of all VMs. The answer is `false`, and nothing is replaced, when a change was received since
/// `changes_before`: the list may be older than it.
#[derive(Message)]
#[rtype(result = "bool")]
pub(crate) struct ReplaceVms {
    pub(crate) vms: Vec<UpstreamVm>,
    pub(crate) change_count_before: u64,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Changed(VmChanged);

impl RouteKeeper {
    pub(crate) fn start(
        bus: Bus,
        frontend: Arc<dyn Frontend>,
        reach: Reach,
        refresh: Waker,
    ) -> Addr<RouteKeeper> {
        let keeper = RouteKeeper {
            table: bus.table(bucket::ROUTES),
            bus,
            frontend,
            vms: BTreeMap::new(),
            reach,
            changes: 0,
            refresh,
        };
        actor::start(MAILBOX, keeper)
    }

    /// Puts a route table for the known VMs in force.
    fn apply(&mut self) {
        let (table, conflicts) =
            RouteTable::build(&self.frontend.table(), claims(self.vms.values(), &self.reach));
        for conflict in conflicts {
            tracing::warn!(%conflict, "a domain is claimed twice");
        }
        self.frontend.swap(table);
    }

    /// Replaces the known VMs by a list, unless a change was received since it was requested.
    fn replace(&mut self, listed: Vec<UpstreamVm>, changes_before: u64) -> bool {
        if self.changes != changes_before {
            return false;
        }
        let known = |vm: UpstreamVm| {
            let before = self.vms.get(&vm.uuid);
            let vm = vm.or_as_known(before);
            (vm.uuid.clone(), vm)
        };
        let listed: BTreeMap<_, _> = listed.into_iter().map(known).collect();
        if listed != self.vms {
            self.vms = listed;
            self.apply();
        }
        true
    }

    fn store(&self) {
        let (table, vms) = (self.table.clone(), KnownVms(self.vms.values().cloned().collect()));
        tokio::spawn(async move {
            if let Err(error) = write(&table, &vms).await {
                tracing::debug!(
                    error = with_causes(&error),
                    "the known VMs were not stored; the next refresh tries again"
                );
            }
        });
    }
}

/// Two proxies store the same list, so the last one to write is right.
async fn write(table: &Table<KnownVms>, vms: &KnownVms) -> Result<(), TableError> {
    match table.get(ROW).await? {
        Some(stored) if stored.value == *vms => Ok(()),
        Some(stored) => table.update(ROW, vms, stored.revision).await.map(|_| ()),
        None => table.create(ROW, vms).await.map(|_| ()),
    }
}

impl Actor for RouteKeeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let table = self.table.clone();
        let stored = async move { table.get(ROW).await };
        ctx.wait(stored.into_actor(self).map(|stored, this, ctx| {
            match stored {
                Ok(Some(entry)) => {
                    this.replace(entry.value.0, 0);
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(error = with_causes(&error), "the stored VMs cannot be read"),
            }
            tokio::spawn(subscribe(this.bus.clone(), ctx.address(), this.refresh.clone()));
        }));
    }
}

/// Passes events on for as long as the keeper lives. The list is read after the subscription has begun, so that no
/// change falls between.
async fn subscribe(bus: Bus, keeper: Addr<RouteKeeper>, refresh: Waker) {
    while keeper.connected() {
        match bus.subscribe::<VmChanged>().await {
            Ok(mut changes) => {
                refresh.wake();
                while let Some((change, context)) = changes.next().await {
                    let span = tracing::info_span!("event", otel.name = "vm_changed", vm = %change.name);
                    telemetry::continue_trace(&span, &context);
                    if keeper.send(TracedMessage { message: Changed(change), span }).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "subscribing to vm_changed failed"),
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

impl Handler<TracedMessage<Changed>> for RouteKeeper {
    type Result = ();
    fn handle(&mut self, changed: TracedMessage<Changed>, _: &mut Context<Self>) {
        let _in = changed.span.enter();
        self.changes += 1;
        let VmChanged { uuid, vm, .. } = changed.message.0;
        let before = match vm {
            Some(vm) => {
                let vm = UpstreamVm::from(vm).or_as_known(self.vms.get(&uuid));
                self.vms.insert(uuid.clone(), vm)
            }
            None => self.vms.remove(&uuid),
        };
        if before.as_ref() != self.vms.get(&uuid) {
            self.apply();
            self.store();
        }
    }
}

impl Handler<TracedMessage<GetVmEventCount>> for RouteKeeper {
    type Result = u64;
    fn handle(&mut self, _: TracedMessage<GetVmEventCount>, _: &mut Context<Self>) -> u64 {
        self.changes
    }
}

impl Handler<TracedMessage<ReplaceVms>> for RouteKeeper {
    type Result = bool;
    fn handle(&mut self, replace: TracedMessage<ReplaceVms>, _: &mut Context<Self>) -> bool {
        let ReplaceVms { vms: listed, change_count_before: changes_before } = replace.message;
        let replaced = self.replace(listed, changes_before);
        self.store();
        replaced
    }
}

impl Handler<TracedMessage<GetRoutes>> for RouteKeeper {
    type Result = actix::MessageResult<TracedMessage<GetRoutes>>;
    fn handle(&mut self, _: TracedMessage<GetRoutes>, _: &mut Context<Self>) -> Self::Result {
        let row = |route: &proxy_domain::Route| RouteRow {
            domain: route.domain.clone(),
            vm: route.vm.clone(),
            target: match route.target {
                UpstreamState::Up(address) => RouteTarget::Address(address.to_string()),
                UpstreamState::Down { reason, .. } => RouteTarget::Unavailable(reason.to_string()),
            },
        };
        let mut routes: Vec<RouteRow> = self.frontend.table().routes().map(|route| row(route)).collect();
        routes.sort_by(|a, b| a.domain.cmp(&b.domain));
        actix::MessageResult(Routes { http_listener: self.frontend.address().to_string(), routes })
    }
}
