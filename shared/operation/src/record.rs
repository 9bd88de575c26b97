//! The row that an operation is.

use contract::operation::{OperationReport, OperationState, Progress};
use contract::{OperationId, Service, Timestamp};
use saga::{Ending, Entry, Journal, Move, next_move};
use serde::{Deserialize, Serialize};

/// An operation as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: OperationId,
    pub(crate) service: Service,
    pub(crate) kind: String,
    pub(crate) about: String,
    /// The command, as JSON, so that the same id with another command can be told.
    pub(crate) input: serde_json::Value,
    pub(crate) journal: Journal,
    pub(crate) state: OperationState,
    pub(crate) steps: Vec<String>,
    pub(crate) begun: Timestamp,
    pub(crate) moved: Timestamp,
    pub(crate) trace: telemetry::TraceContext,
}

impl Record {
    pub(crate) fn key(service: Service, id: &OperationId) -> String {
        format!("{service}.{id}")
    }

    /// Takes a journal's state over into the summary.
    pub(crate) fn moved_to(&mut self, journal: &Journal, now: Timestamp) {
        self.journal = journal.clone();
        self.moved = now;
        let order: Vec<&str> = self.steps.iter().map(String::as_str).collect();
        self.state = match next_move(&order, journal) {
            Move::Do(_) => OperationState::Running,
            Move::Undo(_) => OperationState::Undoing,
            Move::End(Ending::Done) => OperationState::Done,
            Move::End(Ending::Undone(_)) => OperationState::Undone,
            Move::End(Ending::Stuck(_)) => OperationState::Stuck,
        };
    }

    pub(crate) fn report(&self, progress: Option<Progress>) -> OperationReport {
        let order: Vec<&str> = self.steps.iter().map(String::as_str).collect();
        let step = match next_move(&order, &self.journal) {
            Move::Do(index) | Move::Undo(index) => self.steps.get(index).cloned(),
            Move::End(_) => None,
        };
        let reason = match next_move(&order, &self.journal) {
            Move::End(Ending::Stuck(reason)) => Some(reason),
            _ => self.journal.turning_point(),
        };
        let output = match (&self.state, self.journal.entries.last()) {
            (OperationState::Done, Some(Entry::Done(_, value))) if !value.is_null() => Some(value.clone()),
            _ => None,
        };
        OperationReport {
            id: self.id.clone(),
            service: self.service,
            kind: self.kind.clone(),
            about: self.about.clone(),
            state: self.state.clone(),
            progress: step.is_some().then_some(progress).flatten(),
            step,
            steps_done: self.journal.done_count() as u32,
            steps_total: self.steps.len() as u32,
            reason,
            output,
            begun: self.begun,
            moved: self.moved,
            trace_id: self
                .trace
                .get("traceparent")
                .and_then(|text| text.split('-').nth(1))
                .map(str::to_string),
        }
    }
}
