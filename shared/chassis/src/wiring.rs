//! The table of a service: which handler answers which request, and which check comes before which durable command.
//!
//! ```text
//!   Wiring::default()
//!       .answer(list_vms)         async fn list_vms(Arc<Handlers>, IncomingRequest<ListVms>)
//!                                     -> Result<reply, ErrorReply<refusal>>
//!       .begin(check_create_vm)   async fn check_create_vm(Arc<Handlers>, PendingCommand<CreateVm>)
//!                                     -> Result<(), ErrorReply<refusal>>
//! ```
//!
//! A request that only one host can answer has a row `answer_on_host` or `begin_on_host`: the instance that receives it finds
//! out which ([`OnHost`]), and passes it on where it is another; that one answers it and passes it on no further.
//!
//! A row `begin` also registers the saga of its command with the engine, which opens with all of them
//! ([`Wiring::open_engine`]): so an unfinished operation is resumed by any start of the service. A service without durable
//! commands gives its table to [`Service::new`](crate::Service::new) as it is.

use std::future::Future;
use std::sync::Arc;

use bus::{Bus, ErrorReply, IncomingRequest, Server};
use contract::operation::BegunOperation;
use contract::{DurableCommand, HostName, Request, Service};
use encryption::RowKeys;
use operation::{Engine, PendingCommand, Saga, Sagas};

use crate::start::BoxFuture;

type Row<H> = Box<dyn FnOnce(&mut Server, &Arc<H>) + Send>;
type EngineRow<H> = Box<dyn FnOnce(&mut Server, &Arc<H>, &Engine) + Send>;

/// A request that the instance on one host answers; `H` is what the request handlers share.
pub trait OnHost<H>: Request {
    /// The host; none where any instance can answer, as one that is not there.
    fn host(
        &self,
        handlers: &H,
    ) -> impl Future<Output = Result<Option<HostName>, ErrorReply<Self::Refusal>>> + Send;
}

/// The state of the sagas of a service that has none.
pub enum NoSagas {}

/// The rows of a service, over handlers `H` (what its request handlers share) and the state `S` that its sagas use.
pub struct Wiring<H, S = NoSagas> {
    rows: Vec<Row<H>>,
    with_engine: Vec<EngineRow<H>>,
    sagas: Sagas<S>,
    pub(crate) operation_engine: Option<Engine>,
}

impl<H, S> Default for Wiring<H, S> {
    fn default() -> Self {
        Wiring { rows: Vec::new(), with_engine: Vec::new(), sagas: Sagas::default(), operation_engine: None }
    }
}

impl<H: Send + Sync + 'static, S: Send + Sync + 'static> Wiring<H, S> {
    /// Answers a request by a handler.
    pub fn answer<R, F>(mut self, handler: fn(Arc<H>, IncomingRequest<R>) -> F) -> Self
    where
        R: Request,
        F: Future<Output = Result<R::Reply, ErrorReply<R::Refusal>>> + Send + 'static,
    {
        self.rows.push(Box::new(move |server, handlers| {
            let handlers = Arc::clone(handlers);
            server.on(move |call| handler(Arc::clone(&handlers), call));
        }));
        self
    }

    /// Answers a request by a handler, on the host that it concerns.
    pub fn answer_on_host<R, F>(mut self, handler: fn(Arc<H>, IncomingRequest<R>) -> F) -> Self
    where
        R: OnHost<H>,
        F: Future<Output = Result<R::Reply, ErrorReply<R::Refusal>>> + Send + 'static,
    {
        self.with_engine.push(Box::new(move |server, handlers, engine| {
            let (shared, routing) = (Arc::clone(handlers), engine.clone());
            server.on::<R, _, _>(move |call| {
                let (handlers, engine) = (Arc::clone(&shared), routing.clone());
                async move {
                    match call.request.host(&handlers).await? {
                        Some(host) if host != *engine.host() => engine.forward(&host, call).await,
                        _ => handler(handlers, call).await,
                    }
                }
            });
            let shared = Arc::clone(handlers);
            server.on_forwarded::<R, _, _>(engine.host(), move |call| handler(Arc::clone(&shared), call));
        }));
        self
    }

    /// Answers a request that is sent to the instance on one host.
    pub fn answer_at_host<R, F>(mut self, handler: fn(Arc<H>, IncomingRequest<R>) -> F) -> Self
    where
        R: Request,
        F: Future<Output = Result<R::Reply, ErrorReply<R::Refusal>>> + Send + 'static,
    {
        self.with_engine.push(Box::new(move |server, handlers, engine| {
            let handlers = Arc::clone(handlers);
            server.on_host(engine.host(), move |call| handler(Arc::clone(&handlers), call));
        }));
        self
    }

    /// Answers a durable command that is sent to the instance on one host, as [`Self::begin`] does.
    pub fn begin_at_host<C, G, F>(mut self, check: fn(Arc<H>, PendingCommand<C>) -> F) -> Self
    where
        C: Saga<S>,
        G: Send + 'static,
        F: Future<Output = Result<G, ErrorReply<C::Refusal>>> + Send + 'static,
    {
        self.sagas = self.sagas.with::<C>();
        self.with_engine.push(Box::new(move |server, handlers, engine| {
            let begin = beginning(Arc::clone(handlers), engine.clone(), check);
            server.on_host::<C, _, _>(engine.host(), begin);
        }));
        self
    }

    /// Answers a durable command on the host that it concerns, as [`Self::begin`] does.
    pub fn begin_on_host<C, G, F>(mut self, check: fn(Arc<H>, PendingCommand<C>) -> F) -> Self
    where
        C: Saga<S> + OnHost<H>,
        G: Send + 'static,
        F: Future<Output = Result<G, ErrorReply<C::Refusal>>> + Send + 'static,
    {
        self.sagas = self.sagas.with::<C>();
        self.with_engine.push(Box::new(move |server, handlers, engine| {
            let (shared, routing) = (Arc::clone(handlers), engine.clone());
            server.on::<C, _, _>(move |call: IncomingRequest<C>| {
                let (handlers, engine) = (Arc::clone(&shared), routing.clone());
                async move {
                    // One that was received before may be about what is gone.
                    let is_known = engine.is_known(&call).await.map_err(|error| error.to_failure())?;
                    if !is_known
                        && let Some(host) = call.request.host(&handlers).await?
                        && host != *engine.host()
                    {
                        return engine.forward(&host, call).await;
                    }
                    beginning(handlers, engine, check)(call).await
                }
            });
            let begin = beginning(Arc::clone(handlers), engine.clone(), check);
            server.on_forwarded::<C, _, _>(engine.host(), begin);
        }));
        self
    }

    /// Answers a durable command: unless it was received before, its preconditions are checked, then the operation
    /// begins. What `check` returns is held until then.
    pub fn begin<C, G, F>(mut self, check: fn(Arc<H>, PendingCommand<C>) -> F) -> Self
    where
        C: Saga<S>,
        G: Send + 'static,
        F: Future<Output = Result<G, ErrorReply<C::Refusal>>> + Send + 'static,
    {
        self.sagas = self.sagas.with::<C>();
        self.with_engine.push(Box::new(move |server, handlers, engine| {
            server.on::<C, _, _>(beginning(Arc::clone(handlers), engine.clone(), check));
        }));
        self
    }

    /// The keys that rows of durable commands with secret fields are encrypted with.
    pub fn encrypted_with(mut self, keys: Arc<RowKeys>) -> Self {
        self.sagas = self.sagas.encrypted_with(keys);
        self
    }

    /// Opens the engine with the sagas of all rows. Nothing is resumed before the service answers.
    pub fn open_engine(
        self,
        bus: &Bus,
        service: Service,
        host: &HostName,
        state: &Arc<S>,
    ) -> (Engine, Wiring<H>) {
        let engine = self.sagas.open(bus.clone(), service, host.clone(), state);
        let mut rows = self.rows;
        for with_engine in self.with_engine {
            let engine = engine.clone();
            rows.push(Box::new(move |server, handlers| with_engine(server, handlers, &engine)));
        }
        let wiring = Wiring { rows, operation_engine: Some(engine.clone()), ..Wiring::default() };
        (engine, wiring)
    }
}

type Answering<C> = BoxFuture<Result<BegunOperation, ErrorReply<<C as Request>::Refusal>>>;

/// Checks a durable command and begins its operation.
fn beginning<H, C, G, F>(
    handlers: Arc<H>,
    engine: Engine,
    check: fn(Arc<H>, PendingCommand<C>) -> F,
) -> impl Fn(IncomingRequest<C>) -> Answering<C>
where
    H: Send + Sync + 'static,
    C: DurableCommand,
    G: Send + 'static,
    F: Future<Output = Result<G, ErrorReply<C::Refusal>>> + Send + 'static,
{
    move |call| {
        let (handlers, engine) = (Arc::clone(&handlers), engine.clone());
        Box::pin(async move {
            let answering = engine.clone();
            let begin = async move {
                answering.answer(call, async |candidate| check(handlers, candidate).await).await
            };
            engine.run_to_end(begin).await
        })
    }
}

impl<H> Wiring<H> {
    /// Adds all rows to a server.
    pub(crate) fn serve(self, handlers: H, server: &mut Server) {
        let handlers = Arc::new(handlers);
        for row in self.rows {
            row(server, &handlers);
        }
    }
}
