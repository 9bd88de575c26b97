//! How a command ends when it did not fail: "ok", or "ok with warnings".
//!
//! ```text
//!   for programs   {"outcome": "ok" | "ok_with_warnings" | "failed", "warnings": [...], ...what it did}
//!   for people     what it did on stdout, each warning on stderr
//!   exit code      0 | 6 | 1
//! ```

use serde::Serialize;

use crate::cli::exit::{CliError, CliExitCode};
use crate::cli::output::{Text, show};
use crate::stdio;

/// What a command did, and warnings for a person.
pub(super) struct Answer<T> {
    did: T,
    warnings: Vec<String>,
    failure: Option<String>,
    is_dry: bool,
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
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
    #[serde(flatten)]
    did: &'a T,
}

impl<T: Serialize> Answer<T> {
    pub(super) fn new(did: T) -> Answer<T> {
        Answer { did, warnings: Vec::new(), failure: None, is_dry: false }
    }

    pub(super) fn warn(mut self, warnings: impl IntoIterator<Item = String>) -> Answer<T> {
        self.warnings.extend(warnings);
        self
    }

    /// Marks the result of a dry run.
    pub(super) fn dry(mut self, is_dry: bool) -> Answer<T> {
        self.is_dry = is_dry;
        self
    }

    /// A result that is shown and still is a failure.
    pub(super) fn fail(mut self, why: Option<String>) -> Answer<T> {
        self.failure = why;
        self
    }

    /// Shows the result, and returns how the command ends.
    pub(super) fn give(self, json: bool, for_people: impl FnOnce(&T, &mut Text)) -> Result<(), CliError> {
        let outcome = match (&self.failure, self.warnings.is_empty()) {
            (Some(_), _) => Outcome::Failed,
            (None, false) => Outcome::OkWithWarnings,
            (None, true) => Outcome::Ok,
        };
        let Answer { did, warnings, failure, is_dry } = self;
        show(json, &Shown { outcome, warnings: &warnings, dry_run: is_dry, did: &did }, |_, text| {
            for_people(&did, text);
            if is_dry {
                text.line("nothing was changed: this was a dry run");
            }
        })?;
        if !json {
            for warning in &warnings {
                stdio::note(format_args!("warning: {warning}"));
            }
        }
        match (failure, warnings.len()) {
            (Some(why), _) => Err(CliError::already_shown(CliExitCode::Failed, why)),
            (None, 0) => Ok(()),
            (None, 1) => Err(CliError::already_shown(CliExitCode::Warnings, "done, with a warning")),
            (None, more) => {
                Err(CliError::already_shown(CliExitCode::Warnings, format!("done, with {more} warnings")))
            }
        }
    }
}
