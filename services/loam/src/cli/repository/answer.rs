//! How a command ends when it did not fail: "ok", or "ok with warnings".
//!
//! ```text
//!   for programs   {"outcome": "ok" | "ok_with_warnings" | "failed", "warnings": [...], ...what it did}
//!   for people     what it did on stdout, each warning on stderr
//!   exit code      0 | 6 | 1
//! ```

use serde::Serialize;

use crate::cli::exit::{Exit, Trouble};
use crate::cli::output::show;

/// What a command did, and what somebody should look at.
pub(super) struct Answer<T> {
    did: T,
    warnings: Vec<String>,
    failure: Option<String>,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Ok,
    OkWithWarnings,
    Failed,
}

#[derive(Serialize)]
struct Shown<'a, T> {
    outcome: Outcome,
    warnings: &'a [String],
    #[serde(flatten)]
    did: &'a T,
}

impl<T: Serialize> Answer<T> {
    pub(super) fn new(did: T) -> Answer<T> {
        Answer { did, warnings: Vec::new(), failure: None }
    }

    pub(super) fn warn(mut self, warnings: impl IntoIterator<Item = String>) -> Answer<T> {
        self.warnings.extend(warnings);
        self
    }

    /// What was found is bad, and still worth showing.
    pub(super) fn fail(mut self, why: Option<String>) -> Answer<T> {
        self.failure = why;
        self
    }

    /// Shows it, and ends as it did.
    pub(super) fn give(self, json: bool, for_people: impl FnOnce(&T)) -> Result<(), Trouble> {
        let outcome = match (&self.failure, self.warnings.is_empty()) {
            (Some(_), _) => Outcome::Failed,
            (None, false) => Outcome::OkWithWarnings,
            (None, true) => Outcome::Ok,
        };
        let Answer { did, warnings, failure } = self;
        show(json, &Shown { outcome, warnings: &warnings, did: &did }, |_| {
            for_people(&did);
            for warning in &warnings {
                eprintln!("warning: {warning}");
            }
        })?;
        match (failure, warnings.len()) {
            (Some(why), _) => Err(Trouble::told(Exit::Failed, why)),
            (None, 0) => Ok(()),
            (None, 1) => Err(Trouble::told(Exit::Warnings, "done, with a warning")),
            (None, more) => Err(Trouble::told(Exit::Warnings, format!("done, with {more} warnings"))),
        }
    }
}
