//! Steps: an act and its undo, side by side, as plain `async fn`.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::journal::Journal;

/// What a step comes to, once its output is encoded for the journal.
pub type StepFuture<'a> = Pin<Box<dyn Future<Output = Result<Value, StepError>> + Send + 'a>>;
type Erased<C> = Box<dyn for<'a> Fn(&'a C, &'a Outputs) -> StepFuture<'a> + Send + Sync>;

/// How long a step is tried again after transient errors, where nothing else is said.
const RETRY_FOR: Duration = Duration::from_secs(30);

/// Why a step did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// It may succeed when tried again a little later: something did not answer or is busy.
    #[error("{0}")]
    Transient(String),
    /// Trying again does not help.
    #[error("{0}")]
    Permanent(String),
}

/// An `async fn(&C, &Outputs) -> Result<T, StepError>` whose future is `Send`: what an act and an undo are.
pub trait StepFn<'a, C: 'a, T>: Fn(&'a C, &'a Outputs) -> Self::Future {
    /// What it returns.
    type Future: Future<Output = Result<T, StepError>> + Send + 'a;
}

impl<'a, C: 'a, T, F, Fut> StepFn<'a, C, T> for F
where
    F: Fn(&'a C, &'a Outputs) -> Fut,
    Fut: Future<Output = Result<T, StepError>> + Send + 'a,
{
    type Future = Fut;
}

/// One step of a saga over a context `C`.
///
/// `act` must be idempotent, also after it was cut off half-way; `undo` must be a no-op where nothing was done.
pub struct Step<C> {
    /// Its name in the journal; never change it in a saga that is in use.
    pub name: &'static str,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How long transient errors are tried again before the step fails; the sum of the pauses in between.
    pub retry_for: Duration,
    pub(crate) act: Erased<C>,
    pub(crate) undo: Option<Erased<C>>,
}

impl<C: 'static> Step<C> {
    /// A step that needs no undo, because it changes nothing or what it changes may stay. What `act` returns is
    /// written to the journal as JSON and can be read by later steps.
    pub fn new<T: Serialize + 'static>(
        name: &'static str,
        timeout: Duration,
        act: impl for<'a> StepFn<'a, C, T> + Send + Sync + 'static,
    ) -> Self {
        Step { name, timeout, retry_for: RETRY_FOR, act: erased(act), undo: None }
    }

    /// How it is undone.
    pub fn undone_by<T: Serialize + 'static>(
        mut self,
        undo: impl for<'a> StepFn<'a, C, T> + Send + Sync + 'static,
    ) -> Self {
        self.undo = Some(erased(undo));
        self
    }

    /// How long transient errors are tried again, where half a minute is not right.
    pub fn retrying_for(mut self, retry_for: Duration) -> Self {
        self.retry_for = retry_for;
        self
    }
}

fn erased<C: 'static, T: Serialize + 'static>(
    act: impl for<'a> StepFn<'a, C, T> + Send + Sync + 'static,
) -> Erased<C> {
    Box::new(move |context, outputs| {
        let future = act(context, outputs);
        Box::pin(async move {
            serde_json::to_value(future.await?)
                .map_err(|error| StepError::Permanent(format!("the output cannot be encoded: {error}")))
        })
    })
}

/// What earlier steps returned.
#[derive(Clone, Debug, Default)]
pub struct Outputs(Journal);

impl Outputs {
    /// The outputs that a journal holds.
    pub fn of(journal: &Journal) -> Outputs {
        Outputs(journal.clone())
    }

    /// The output of an earlier step.
    ///
    /// # Errors
    /// Permanent, when the step is not done or returned another type.
    pub fn get<T: DeserializeOwned>(&self, step: &str) -> Result<T, StepError> {
        self.find(step)?.ok_or_else(|| StepError::Permanent(format!("step {step} left no output")))
    }

    /// The output of an earlier step, if it was done: an undo runs in both cases.
    ///
    /// # Errors
    /// Permanent, when the step returned another type.
    pub fn find<T: DeserializeOwned>(&self, step: &str) -> Result<Option<T>, StepError> {
        let Some(value) = self.0.output(step) else {
            return Ok(None);
        };
        serde_json::from_value(value.clone()).map(Some).map_err(|error| {
            StepError::Permanent(format!("the output of step {step} cannot be decoded: {error}"))
        })
    }
}
