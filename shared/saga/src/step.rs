//! Steps: an act and its undo, side by side.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::journal::Journal;

/// What a step function returns.
pub type StepFuture<'a> = Pin<Box<dyn Future<Output = Result<Value, Trouble>> + Send + 'a>>;
type StepFn<C> = for<'a> fn(&'a C, &'a Trail<'a>) -> StepFuture<'a>;

/// Why a step did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// It may succeed a little later: somebody did not answer, something is busy.
    #[error("{0}")]
    Passing(String),
    /// It will not succeed by waiting.
    #[error("{0}")]
    Final(String),
}

/// One step of a saga over a context `C`.
///
/// `act` must bear being repeated, also after it was cut off half-way; `undo` must bear that nothing was done.
pub struct Step<C> {
    /// Its name in the journal; never change it in a saga that is in use.
    pub name: &'static str,
    /// How long one attempt may take.
    pub limit: Duration,
    /// How long passing trouble is borne before it is final.
    pub patience: Duration,
    pub(crate) act: StepFn<C>,
    pub(crate) undo: Option<StepFn<C>>,
}

impl<C> Step<C> {
    /// A step that needs no undo, because it changes nothing or what it changes may stay.
    pub const fn new(name: &'static str, limit: Duration, act: StepFn<C>) -> Self {
        Step { name, limit, patience: Duration::from_secs(30), act, undo: None }
    }

    /// How it is undone.
    pub const fn undone_by(mut self, undo: StepFn<C>) -> Self {
        self.undo = Some(undo);
        self
    }

    /// How long passing trouble is borne, where half a minute is not right.
    pub const fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }
}

/// What earlier steps brought about.
#[derive(Debug)]
pub struct Trail<'a>(pub(crate) &'a Journal);

/// Turns what a step brought about into a journal value.
pub fn output<T: Serialize>(value: &T) -> Result<Value, Trouble> {
    serde_json::to_value(value)
        .map_err(|error| Trouble::Final(format!("an output cannot be written down: {error}")))
}

impl Trail<'_> {
    /// The output of an earlier step.
    pub fn of<T: DeserializeOwned>(&self, step: &str) -> Result<T, Trouble> {
        let value =
            self.0.output(step).ok_or_else(|| Trouble::Final(format!("step {step} left no output")))?;
        serde_json::from_value(value.clone())
            .map_err(|error| Trouble::Final(format!("the output of step {step} cannot be read: {error}")))
    }

    /// The output of an earlier step if it was done; undo functions meet both cases.
    pub fn if_done<T: DeserializeOwned>(&self, step: &str) -> Option<T> {
        self.0.output(step).and_then(|value| serde_json::from_value(value.clone()).ok())
    }
}
