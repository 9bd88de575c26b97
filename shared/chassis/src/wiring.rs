//! The table of a service: which handler answers which request, and which saga a durable command begins.
//!
//! ```text
//!   Wiring::new(handlers, engine)
//!       .answer(list_vms)                        async fn list_vms(Arc<Handlers>, Call<ListVms>) -> Result<reply, Declined<refusal>>
//!       .begin(sagas::StopVm, check_stop_vm)     async fn check_stop_vm(Arc<Handlers>, Candidate<StopVm>) -> Result<guard, ...>
//! ```

use std::future::Future;
use std::sync::Arc;

use bus::{Call, Declined, Server};
use contract::Request;
use operation::{Candidate, Engine, Saga};

type Row = Box<dyn FnOnce(&mut Server) + Send>;

/// The rows of a service, over handlers `H`: what its request handlers share.
pub struct Wiring<H> {
    handlers: Arc<H>,
    rows: Vec<Row>,
}

impl<H: Send + Sync + 'static> Wiring<H> {
    /// An empty table.
    pub fn new(handlers: H) -> Self {
        Wiring { handlers: Arc::new(handlers), rows: Vec::new() }
    }

    /// Answers a request by a handler.
    pub fn answer<R, F>(mut self, handler: fn(Arc<H>, Call<R>) -> F) -> Self
    where
        R: Request,
        F: Future<Output = Result<R::Reply, Declined<R::Refusal>>> + Send + 'static,
    {
        let handlers = Arc::clone(&self.handlers);
        self.rows.push(Box::new(move |server| {
            server.on(move |call| handler(Arc::clone(&handlers), call));
        }));
        self
    }

    /// Answers a durable command: unless it was received before, its preconditions are checked, then the operation
    /// begins. A guard that `check` returns is held until then.
    pub fn begin<S, G, F>(
        mut self,
        engine: &Engine,
        _saga: S,
        check: fn(Arc<H>, Candidate<S::Command>) -> F,
    ) -> Self
    where
        S: Saga,
        G: Send + 'static,
        F: Future<Output = Result<G, Declined<<S::Command as Request>::Refusal>>> + Send + 'static,
    {
        let (handlers, engine) = (Arc::clone(&self.handlers), engine.clone());
        self.rows.push(Box::new(move |server| {
            server.on::<S::Command, _, _>(move |call| {
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

    /// Adds all rows to a server.
    pub(crate) fn serve(self, server: &mut Server) {
        for row in self.rows {
            row(server);
        }
    }
}
