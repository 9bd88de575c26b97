//! The sagas of a service, collected before its engine opens.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bus::{Bus, Entry};
use contract::message::DurableCommand;
use contract::secret::has_secrets;
use contract::{HostName, Service};
use encryption::RowKeys;
use saga::Step;

use crate::context::Context;
use crate::engine::Engine;
use crate::record::OperationRecord;

/// The steps that carry a durable command out, in the service whose state (ports and actors) is `S`.
pub trait Saga<S>: DurableCommand {
    /// Its steps in order.
    fn steps() -> Vec<Step<Context<S, Self>>>;
}

type Driving = Pin<Box<dyn Future<Output = ()> + Send>>;
type Drive = Box<dyn Fn(Engine, Entry<OperationRecord>) -> Driving + Send + Sync>;

pub(crate) struct RegisteredSaga {
    pub(crate) steps: Vec<String>,
    /// Whether its command has secret fields: then its rows are encrypted.
    pub(crate) has_secrets: bool,
    pub(crate) drive: Drive,
}

/// The sagas of a service, collected before its engine opens: an engine that runs knows all of them. `S` is the state
/// that their steps use.
pub struct Sagas<S> {
    kinds: HashMap<&'static str, SagaOf<S>>,
    keys: Option<Arc<RowKeys>>,
}

struct SagaOf<S> {
    steps: Vec<String>,
    has_secrets: bool,
    drive: fn(Engine, Arc<S>, Entry<OperationRecord>) -> Driving,
}

impl<S> Default for Sagas<S> {
    fn default() -> Self {
        Sagas { kinds: HashMap::new(), keys: None }
    }
}

impl<S: Send + Sync + 'static> Sagas<S> {
    /// Adds the saga of a command.
    pub fn with<C: Saga<S>>(mut self) -> Self {
        let steps = C::steps().iter().map(|step| step.name.to_string()).collect();
        self.kinds.insert(
            C::NAME,
            SagaOf {
                steps,
                has_secrets: has_secrets::<C>(),
                drive: |engine, state, row| Box::pin(engine.run::<C, S>(state, row)),
            },
        );
        self
    }

    /// The keys that rows of commands with secret fields are encrypted with.
    pub fn encrypted_with(mut self, keys: Arc<RowKeys>) -> Self {
        self.keys = Some(keys);
        self
    }

    /// Opens the engine of a service on a host. Nothing is resumed yet.
    ///
    /// # Panics
    /// Where a command has secret fields and there is nothing to encrypt its rows with: a defect of the service.
    pub fn open(self, bus: Bus, service: Service, host: HostName, state: &Arc<S>) -> Engine {
        assert!(
            self.keys.is_some() || self.kinds.values().all(|saga| !saga.has_secrets),
            "{service} has commands with secret fields and no keys to encrypt their rows with"
        );
        let kind = |SagaOf { steps, has_secrets, drive }| {
            let state = Arc::clone(state);
            RegisteredSaga {
                steps,
                has_secrets,
                drive: Box::new(move |engine, row| drive(engine, Arc::clone(&state), row)),
            }
        };
        let sagas = self.kinds.into_iter().map(|(name, saga)| (name, kind(saga))).collect();
        let keys = self.keys.unwrap_or_else(|| Arc::new(RowKeys::none("this service encrypts no rows")));
        Engine::over(bus, service, host, sagas, keys)
    }
}
