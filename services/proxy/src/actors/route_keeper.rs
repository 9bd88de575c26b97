//! The RouteKeeper knows the machines as far as traffic is concerned and puts a table in force at every change. It
//! begins with what was known last, hears changes as they happen, and reads the whole list calmly again and again,
//! because events can be lost. When it dies, the row and the list give everything back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::fut::{ActorFutureExt, WrapFuture};
use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, SpawnHandle};
use actor::Traced;
use bus::{Bus, CallError, Table, TableError};
use contract::provisioner::{ListVms, VmChanged};
use contract::proxy::{RouteRow, RouteTarget, Routes};
use contract::message::Nothing;
use contract::{VmName, bucket};
use futures::StreamExt;
use proxy_domain::{KnownVm, RouteTable, Target, claims};
use tracing::Span;

use crate::front::Front;

/// Events of a burst of changes, and every question of the desk.
const MAILBOX: usize = 128;
/// How often the whole list is read again.
const READ_EVERY: Duration = Duration::from_secs(10);
/// How often, while the provisioner does not answer or events cannot be heard.
const TRY_EVERY: Duration = Duration::from_secs(1);
/// The list is read from memory there.
const LIST_MAX: Duration = Duration::from_secs(5);
/// The one row of the table.
const ROW: &str = "known";

/// Keeps the route table.
pub struct RouteKeeper {
    bus: Bus,
    front: Arc<Front>,
    known: BTreeMap<VmName, KnownVm>,
    row: Table<Vec<KnownVm>>,
    /// Counts changes, so that a list asked for before a change does not take it back.
    changes: u64,
    next_reading: Option<SpawnHandle>,
    trouble: Option<String>,
}

/// Where each domain leads.
#[derive(Message)]
#[rtype(result = "Routes")]
pub(crate) struct Rows;

/// What is wrong with the table, if anything is.
#[derive(Message)]
#[rtype(result = "Option<String>")]
pub(crate) struct TroubleAt;

#[derive(Message)]
#[rtype(result = "()")]
struct Heard(VmChanged);

#[derive(Message)]
#[rtype(result = "()")]
struct Read;

impl RouteKeeper {
    pub(crate) fn start(bus: Bus, front: Arc<Front>) -> Addr<RouteKeeper> {
        let row = bus.table(bucket::ROUTES);
        let trouble = Some("the provisioner was not asked yet".to_string());
        let keeper =
            RouteKeeper { bus, front, known: BTreeMap::new(), row, changes: 0, next_reading: None, trouble };
        actor::start(MAILBOX, keeper)
    }

    /// Puts a table of what is known in force.
    fn apply(&mut self) {
        let (table, conflicts) = RouteTable::build(&self.front.table(), claims(self.known.values()));
        for conflict in conflicts {
            tracing::warn!(%conflict, "a domain is claimed twice");
        }
        self.front.swap(table);
    }

    /// Takes over a whole list, if nothing was heard since it was asked for.
    fn take(&mut self, listed: Vec<KnownVm>, asked_at: u64) -> bool {
        if self.changes != asked_at {
            return false;
        }
        let listed: BTreeMap<_, _> =
            listed.into_iter().map(|machine| (machine.name.clone(), machine)).collect();
        if listed != self.known {
            self.known = listed;
            self.apply();
        }
        true
    }

    fn remember(&self) {
        let (row, known) = (self.row.clone(), self.known.values().cloned().collect::<Vec<_>>());
        tokio::spawn(async move {
            if let Err(error) = write(&row, &known).await {
                tracing::debug!(%error, "what is known was not written down; the next reading tries again");
            }
        });
    }
}

/// Two proxies write the same; whoever is last is right.
async fn write(row: &Table<Vec<KnownVm>>, known: &Vec<KnownVm>) -> Result<(), TableError> {
    match row.get(ROW).await? {
        Some(held) if held.value == *known => Ok(()),
        Some(held) => row.update(ROW, known, held.revision).await.map(|_| ()),
        None => row.create(ROW, known).await.map(|_| ()),
    }
}

impl Actor for RouteKeeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let row = self.row.clone();
        let recall = async move { row.get(ROW).await };
        ctx.wait(recall.into_actor(self).map(|recalled, this, ctx| {
            match recalled {
                Ok(Some(entry)) => {
                    this.take(entry.value, 0);
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "what was known last cannot be read"),
            }
            tokio::spawn(hear(this.bus.clone(), ctx.address()));
        }));
    }
}

/// Hears changes for as long as the keeper lives. The whole list is read after listening has begun, so that nothing
/// falls between.
async fn hear(bus: Bus, keeper: Addr<RouteKeeper>) {
    while keeper.connected() {
        match bus.subscribe::<VmChanged>().await {
            Ok(mut changes) => {
                if keeper.send(Traced::here(Read)).await.is_err() {
                    return;
                }
                while let Some((change, context)) = changes.next().await {
                    let span = tracing::info_span!("heard", otel.name = "vm_changed", vm = %change.name);
                    telemetry::continue_trace(&span, &context);
                    if keeper.send(Traced { message: Heard(change), span }).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "changes cannot be heard yet"),
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
}

impl Handler<Traced<Heard>> for RouteKeeper {
    type Result = ();
    fn handle(&mut self, heard: Traced<Heard>, _: &mut Context<Self>) {
        let _in = heard.span.enter();
        self.changes += 1;
        let VmChanged { name, vm } = heard.message.0;
        let before = match vm {
            Some(vm) => self.known.insert(name.clone(), vm.into()),
            None => self.known.remove(&name),
        };
        if before.as_ref() != self.known.get(&name) {
            self.apply();
            self.remember();
        }
    }
}

impl Handler<Traced<Read>> for RouteKeeper {
    type Result = ();
    fn handle(&mut self, _: Traced<Read>, ctx: &mut Context<Self>) {
        let (bus, asked_at) = (self.bus.clone(), self.changes);
        let list = async move { bus.call(&ListVms {}, LIST_MAX).await };
        ctx.spawn(list.into_actor(self).map(move |listed: Result<_, CallError<NoRefusal>>, this, ctx| {
            let again = match listed {
                Ok(vms) => {
                    this.trouble = None;
                    let taken = this.take(vms.into_iter().map(KnownVm::from).collect(), asked_at);
                    this.remember();
                    if taken { READ_EVERY } else { TRY_EVERY }
                }
                Err(error) => {
                    tracing::debug!(%error, "machines cannot be listed; traffic goes where it went");
                    this.trouble = Some(error.to_string());
                    TRY_EVERY
                }
            };
            // One reading follows another, however often somebody asks for one in between.
            let next = ctx.notify_later(Traced { message: Read, span: Span::none() }, again);
            if let Some(before) = this.next_reading.replace(next) {
                ctx.cancel_future(before);
            }
        }));
    }
}

impl Handler<Traced<Rows>> for RouteKeeper {
    type Result = actix::MessageResult<Traced<Rows>>;
    fn handle(&mut self, _: Traced<Rows>, _: &mut Context<Self>) -> Self::Result {
        let row = |route: &proxy_domain::Route| RouteRow {
            domain: route.host.clone(),
            vm: route.owner.clone(),
            target: match route.target {
                Target::Up(address) => RouteTarget::Address(address.to_string()),
                Target::Down { why, .. } => RouteTarget::Unavailable(why.to_string()),
            },
        };
        let mut routes: Vec<RouteRow> = self.front.table().routes().map(|route| row(route)).collect();
        routes.sort_by(|a, b| a.domain.cmp(&b.domain));
        actix::MessageResult(Routes { http_listener: self.front.address().to_string(), routes })
    }
}

impl Handler<Traced<TroubleAt>> for RouteKeeper {
    type Result = Option<String>;
    fn handle(&mut self, _: Traced<TroubleAt>, _: &mut Context<Self>) -> Self::Result {
        self.trouble.clone()
    }
}
