//! What has happened, and what is therefore next.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One line of a journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A step was about to act.
    Started(String),
    /// A step acted; this is what it brought about.
    Done(String, Value),
    /// A step failed for good.
    Failed(String, String),
    /// Somebody asked to give up.
    Cancelled,
    /// A step was about to be undone.
    Undoing(String),
    /// A step was undone.
    Undone(String),
    /// A step could not be undone; a person is needed.
    UndoFailed(String, String),
}

/// The lines in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Journal {
    /// First to last.
    pub entries: Vec<Entry>,
}

/// What is next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// Do the step of this index; it may have been begun before.
    Do(usize),
    /// Undo the step of this index; it may have been begun, done, or undone in part.
    Undo(usize),
    /// Nothing more.
    End(Ending),
}

/// How a saga ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All steps are done.
    Done,
    /// The world is as before; this is why.
    Undone(String),
    /// Neither; this is where and why.
    Stuck(String),
}

impl Journal {
    /// What a done step brought about.
    pub fn output(&self, step: &str) -> Option<&Value> {
        self.entries.iter().rev().find_map(|entry| match entry {
            Entry::Done(name, value) if name == step => Some(value),
            _ => None,
        })
    }

    /// Why the saga turned back, if it did.
    pub fn turning_point(&self) -> Option<String> {
        self.entries.iter().find_map(|entry| match entry {
            Entry::Failed(step, reason) => Some(format!("{step}: {reason}")),
            Entry::Cancelled => Some("cancelled".into()),
            _ => None,
        })
    }

    /// Steps that are done.
    pub fn done_count(&self) -> usize {
        self.entries.iter().filter(|entry| matches!(entry, Entry::Done(..))).count()
    }
}

/// Decides what is next. Steps are known by name, so that a newer version may add steps at the end; a journal that
/// names a step which this version does not know ends stuck.
pub fn next_move(order: &[&str], journal: &Journal) -> Move {
    let mut begun = vec![false; order.len()];
    let mut done = vec![false; order.len()];
    let mut undone = vec![false; order.len()];
    for entry in &journal.entries {
        let (name, row) = match entry {
            Entry::Started(name) => (name, &mut begun),
            Entry::Done(name, _) => (name, &mut done),
            Entry::Undone(name) => (name, &mut undone),
            Entry::UndoFailed(name, reason) => {
                return Move::End(Ending::Stuck(format!("undoing {name}: {reason}")));
            }
            Entry::Failed(..) | Entry::Cancelled | Entry::Undoing(_) => continue,
        };
        match order.iter().position(|step| step == name) {
            Some(index) => row[index] = true,
            None => return Move::End(Ending::Stuck(format!("this version knows no step {name}"))),
        }
    }
    match journal.turning_point() {
        Some(reason) => match (0..order.len()).rev().find(|&index| begun[index] && !undone[index]) {
            Some(index) => Move::Undo(index),
            None => Move::End(Ending::Undone(reason)),
        },
        None => match (0..order.len()).find(|&index| !done[index]) {
            Some(index) => Move::Do(index),
            None => Move::End(Ending::Done),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: [&str; 3] = ["a", "b", "c"];

    fn after(entries: &[Entry]) -> Move {
        next_move(&ORDER, &Journal { entries: entries.to_vec() })
    }
    fn started(step: &str) -> Entry {
        Entry::Started(step.into())
    }
    fn done(step: &str) -> Entry {
        Entry::Done(step.into(), Value::Null)
    }

    #[test]
    fn steps_are_done_in_order_and_a_begun_one_is_done_again() {
        assert_eq!(after(&[]), Move::Do(0));
        assert_eq!(after(&[started("a")]), Move::Do(0));
        assert_eq!(after(&[started("a"), done("a")]), Move::Do(1));
        let all = ["a", "b", "c"].map(|s| [started(s), done(s)]).concat();
        assert_eq!(after(&all), Move::End(Ending::Done));
    }

    #[test]
    fn a_failed_step_is_itself_undone_first_and_what_was_never_begun_is_left_alone() {
        let mut entries = vec![started("a"), done("a"), started("b"), Entry::Failed("b".into(), "no".into())];
        assert_eq!(after(&entries), Move::Undo(1));
        entries.push(Entry::Undone("b".into()));
        assert_eq!(after(&entries), Move::Undo(0));
        entries.push(Entry::Undone("a".into()));
        assert_eq!(after(&entries), Move::End(Ending::Undone("b: no".into())));
    }

    #[test]
    fn an_unknown_step_stops_everything() {
        assert!(matches!(after(&[started("z")]), Move::End(Ending::Stuck(_))));
    }
}
