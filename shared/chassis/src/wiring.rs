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
//! A row `begin` also registers the saga of its command with the engine, which opens with all of them
//! ([`Wiring::open_engine`]): so an unfinished operation is resumed by any start of the service. A service without durable
//! commands gives its table to [`Service::new`](crate::Service::new) as it is.

use std::future::Future;
use std::sync::Arc;

use bus::{Bus, ErrorReply, IncomingRequest, Server};
use contract::{HostName, Request, Service};
use encryption::RowKeys;
use operation::{Engine, PendingCommand, Saga, Sagas};

type Row<H> = Box<dyn FnOnce(&mut Server, &Arc<H>) + Send>;
type BeginRow<H> = Box<dyn FnOnce(&mut Server, &Arc<H>, &Engine) + Send>;

/// The state of the sagas of a service that has none.
pub enum NoSagas {}

/// The rows of a service, over handlers `H` (what its request handlers share) and the state `S` that its sagas use.
pub struct Wiring<H, S = NoSagas> {
    rows: Vec<Row<H>>,
    begins: Vec<BeginRow<H>>,
    sagas: Sagas<S>,
    pub(crate) operation_engine: Option<Engine>,
}

impl<H, S> Default for Wiring<H, S> {
    fn default() -> Self {
        Wiring { rows: Vec::new(), begins: Vec::new(), sagas: Sagas::default(), operation_engine: None }
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

    /// Answers a durable command: unless it was received before, its preconditions are checked, then the operation
    /// begins. What `check` returns is held until then.
    pub fn begin<C, G, F>(mut self, check: fn(Arc<H>, PendingCommand<C>) -> F) -> Self
    where
        C: Saga<S>,
        G: Send + 'static,
        F: Future<Output = Result<G, ErrorReply<C::Refusal>>> + Send + 'static,
    {
        self.sagas = self.sagas.with::<C>();
        self.begins.push(Box::new(move |server, handlers, engine| {
            let (handlers, engine) = (Arc::clone(handlers), engine.clone());
            server.on::<C, _, _>(move |call| {
                let (handlers, engine) = (Arc::clone(&handlers), engine.clone());
                async move {
                    let answering = engine.clone();
                    let begin = async move {
                        answering.answer(call, async |candidate| check(handlers, candidate).await).await
                    };
                    engine.run_to_end(begin).await
                }
            });
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
        for begin in self.begins {
            let engine = engine.clone();
            rows.push(Box::new(move |server, handlers| begin(server, handlers, &engine)));
        }
        let wiring = Wiring { rows, operation_engine: Some(engine.clone()), ..Wiring::default() };
        (engine, wiring)
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
