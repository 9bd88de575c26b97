//! How a command ends: one exit code for each kind of end, one sentence for people, one object for programs.

use std::process::ExitCode;

use serde_json::json;

use crate::stdio;

/// The codes, as `--help` shows them.
pub const TABLE: &str = "\
Exit codes:
  0    done, also when the reader of standard output closed it early
  1    failed, or begun and undone; a listing could not be written
  2    wrong arguments or a wrong input file
  3    refused by a service or a repository, nothing was done (restic's 3, done with warnings, is 6 here)
  4    the bus, the service or the store cannot be reached
  5    an operation is stuck: a person must look at it
  6    done, with warnings; done, but the result could not be written
  130  interrupted; what a service has begun goes on
  141  the reader closed standard output before a disk, stream or file was whole";

/// A code of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CliExitCode {
    /// It failed, or was undone.
    Failed = 1,
    /// Wrong arguments or input.
    Usage = 2,
    /// The service or the repository refuses.
    Refused = 3,
    /// The bus, the service or the store does not answer.
    Unreachable = 4,
    /// An operation is neither done nor undone.
    OperationStuck = 5,
    /// It is done, with warnings.
    Warnings = 6,
    /// Ctrl-C.
    Interrupted = 130,
    /// The reader closed standard output in the middle of data; what SIGPIPE would end with.
    BrokenPipe = 141,
}

impl CliExitCode {
    /// The name for programs, where an error has no finer one.
    fn kind(self) -> &'static str {
        match self {
            CliExitCode::Failed => "failed",
            CliExitCode::Usage => "arguments",
            CliExitCode::Refused => "refused",
            CliExitCode::Unreachable => "unreachable",
            CliExitCode::OperationStuck => "stuck",
            CliExitCode::Warnings => "warnings",
            CliExitCode::Interrupted => "interrupted",
            CliExitCode::BrokenPipe => "reader_gone",
        }
    }
}

/// Why a command does not end with 0.
#[derive(Debug)]
pub struct CliError {
    exit: CliExitCode,
    message: String,
    kind: &'static str,
    /// Whether standard output has an answer already.
    shown: bool,
}

impl CliError {
    /// An error that ends with this code, in one sentence.
    pub fn new(exit: CliExitCode, message: impl Into<String>) -> CliError {
        CliError { exit, message: message.into(), kind: exit.kind(), shown: false }
    }

    /// An error that the answer on standard output contains: programs get no second object.
    pub fn already_shown(exit: CliExitCode, message: impl Into<String>) -> CliError {
        CliError::new(exit, message).after_answer()
    }

    /// The same, with a name for programs that is finer than the code.
    #[must_use]
    pub fn with_kind(self, kind: &'static str) -> CliError {
        CliError { kind, ..self }
    }

    /// The same, after an answer was shown: programs get no second object.
    #[must_use]
    pub fn after_answer(self) -> CliError {
        CliError { shown: true, ..self }
    }

    /// The same, with something added to its sentence.
    #[must_use]
    pub fn append(mut self, more: &str) -> CliError {
        self.message.push_str(more);
        self
    }

    /// The name for programs.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// The code.
    pub fn exit(&self) -> CliExitCode {
        self.exit
    }

    /// The sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What kept `loam up` from running.
    pub fn of_start(error: anyhow::Error) -> CliError {
        let exit = if error.is::<crate::up::settings::SettingsError>() {
            CliExitCode::Usage
        } else {
            CliExitCode::Failed
        };
        CliError::new(exit, format!("{error:#}"))
    }

    /// Writes the sentence to standard error, or the object to standard output unless there is one already.
    pub(super) fn report(&self, json: bool) -> ExitCode {
        let code = self.exit as u8;
        if self.exit == CliExitCode::BrokenPipe {
            // The reader that closed standard output needs no message.
        } else if json && !self.shown {
            let error = json!({ "exit_code": code, "kind": self.kind, "message": self.message });
            stdio::line(json!({ "outcome": "failed", "error": error }));
        } else {
            stdio::note(format_args!("loam: {}", self.message));
        }
        ExitCode::from(code)
    }
}
