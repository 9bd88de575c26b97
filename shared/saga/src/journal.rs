//! What has happened, and what is therefore next.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One entry of a journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JournalEntry {
    /// A step was about to act.
    Started(String),
    /// A step is done; this is what it returned.
    Done(String, Value),
    /// A step failed permanently, for this reason.
    Failed(String, String),
    /// Cancellation was requested.
    Cancelled,
    /// A step was about to be undone.
    Undoing(String),
    /// A step was undone.
    Undone(String),
    /// A step could not be undone; a person is needed.
    UndoFailed(String, String),
}

/// The entries in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Journal {
    /// First to last.
    pub entries: Vec<JournalEntry>,
}

/// What is next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Do the step of this index; it may have been started before.
    Do(usize),
    /// Undo the step of this index; it may have been started, done, or undone in part.
    Undo(usize),
    /// Nothing more.
    End(SagaOutcome),
}

/// How a saga ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SagaOutcome {
    /// All steps are done.
    Done,
    /// Everything is as before; this is why.
    Undone(String),
    /// Neither; this is where and why.
    Stuck(String),
}

impl Journal {
    /// What a done step returned.
    pub fn output(&self, step: &str) -> Option<&Value> {
        self.entries.iter().rev().find_map(|entry| match entry {
            JournalEntry::Done(name, value) if name == step => Some(value),
            _ => None,
        })
    }

    /// Why the saga is being undone, if it is.
    pub fn undo_reason(&self) -> Option<String> {
        self.entries.iter().find_map(|entry| match entry {
            JournalEntry::Failed(step, reason) => Some(format!("{step}: {reason}")),
            JournalEntry::Cancelled => Some("cancelled".into()),
            _ => None,
        })
    }

    /// Steps that are done.
    pub fn done_count(&self) -> usize {
        self.entries.iter().filter(|entry| matches!(entry, JournalEntry::Done(..))).count()
    }
}

/// Decides what is next. Steps are known by name, so that a newer version may add steps at the end; a journal that
/// names a step which this version does not know ends stuck.
pub fn next_action(order: &[&str], journal: &Journal) -> Action {
    let mut started = vec![false; order.len()];
    let mut done = vec![false; order.len()];
    let mut undone = vec![false; order.len()];
    for entry in &journal.entries {
        let (name, row) = match entry {
            JournalEntry::Started(name) => (name, &mut started),
            JournalEntry::Done(name, _) => (name, &mut done),
            JournalEntry::Undone(name) => (name, &mut undone),
            JournalEntry::UndoFailed(name, reason) => {
                return Action::End(SagaOutcome::Stuck(format!("undoing {name}: {reason}")));
            }
            JournalEntry::Failed(..) | JournalEntry::Cancelled | JournalEntry::Undoing(_) => continue,
        };
        match order.iter().position(|step| step == name) {
            Some(index) => row[index] = true,
            None => return Action::End(SagaOutcome::Stuck(format!("this version knows no step {name}"))),
        }
    }
    match journal.undo_reason() {
        Some(reason) => match (0..order.len()).rev().find(|&index| started[index] && !undone[index]) {
            Some(index) => Action::Undo(index),
            None => Action::End(SagaOutcome::Undone(reason)),
        },
        None => match (0..order.len()).find(|&index| !done[index]) {
            Some(index) => Action::Do(index),
            None => Action::End(SagaOutcome::Done),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: [&str; 3] = ["a", "b", "c"];

    fn after(entries: &[JournalEntry]) -> Action {
        next_action(&ORDER, &Journal { entries: entries.to_vec() })
    }
    fn started(step: &str) -> JournalEntry {
        JournalEntry::Started(step.into())
    }
    fn done(step: &str) -> JournalEntry {
        JournalEntry::Done(step.into(), Value::Null)
    }

    #[test]
    fn steps_are_done_in_order_and_a_started_one_is_done_again() {
        assert_eq!(after(&[]), Action::Do(0));
        assert_eq!(after(&[started("a")]), Action::Do(0));
        assert_eq!(after(&[started("a"), done("a")]), Action::Do(1));
        let all = ["a", "b", "c"].map(|s| [started(s), done(s)]).concat();
        assert_eq!(after(&all), Action::End(SagaOutcome::Done));
    }

    #[test]
    fn a_failed_step_is_itself_undone_first_and_what_was_never_started_is_left_alone() {
        let mut entries =
            vec![started("a"), done("a"), started("b"), JournalEntry::Failed("b".into(), "no".into())];
        assert_eq!(after(&entries), Action::Undo(1));
        entries.push(JournalEntry::Undone("b".into()));
        assert_eq!(after(&entries), Action::Undo(0));
        entries.push(JournalEntry::Undone("a".into()));
        assert_eq!(after(&entries), Action::End(SagaOutcome::Undone("b: no".into())));
    }

    #[test]
    fn an_unknown_step_stops_everything() {
        assert!(matches!(after(&[started("z")]), Action::End(SagaOutcome::Stuck(_))));
    }
}
