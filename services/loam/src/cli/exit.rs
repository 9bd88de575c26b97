//! How a command ends: one code a kind of end, one sentence for people, one object for programs.

use std::process::ExitCode;

use serde_json::json;

/// The codes, as `--help` shows them.
pub const TABLE: &str = "\
Exit codes:
  0    done
  1    failed, or begun and undone again
  2    wrong arguments or a wrong input file
  3    refused by the service asked, or by a repository
  4    the bus, the service or the store cannot be reached
  5    stuck: a person must look at it
  6    done, with warnings
  130  interrupted; what a service has begun goes on";

/// A code of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It failed, or was undone.
    Failed = 1,
    /// Wrong arguments or input.
    Usage = 2,
    /// The service says no, or the repository does.
    Refused = 3,
    /// No bus or store, or nobody answers.
    Unreachable = 4,
    /// Neither done nor undone.
    Stuck = 5,
    /// It is done, and somebody should look at how.
    Warnings = 6,
    /// Ctrl-C.
    Interrupted = 130,
}

/// Why a command did not end well.
#[derive(Debug)]
pub struct Trouble {
    exit: Exit,
    sentence: String,
    /// A word for programs, finer than the code.
    kind: Option<&'static str>,
    /// Whether stdout has an answer already.
    told: bool,
}

impl Trouble {
    /// A trouble of this kind, in one sentence.
    pub fn new(exit: Exit, sentence: impl Into<String>) -> Trouble {
        Trouble { exit, sentence: sentence.into(), kind: None, told: false }
    }

    /// A trouble that the answer on stdout shows in full; programs are not told twice.
    pub fn told(exit: Exit, sentence: impl Into<String>) -> Trouble {
        Trouble { told: true, ..Trouble::new(exit, sentence) }
    }

    /// The same, with a word that programs can tell it by.
    #[must_use]
    pub fn of_kind(self, kind: &'static str) -> Trouble {
        Trouble { kind: Some(kind), ..self }
    }

    /// The same, when an answer was shown before it came: programs get no second one on stdout.
    #[must_use]
    pub fn after_the_answer(self) -> Trouble {
        Trouble { told: true, ..self }
    }

    /// The same, with something added to its sentence.
    #[must_use]
    pub fn and(mut self, more: &str) -> Trouble {
        self.sentence.push_str(more);
        self
    }

    /// The word that programs can tell it by.
    pub fn kind(&self) -> Option<&'static str> {
        self.kind
    }

    /// What kind of end it is.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// The sentence.
    pub fn sentence(&self) -> &str {
        &self.sentence
    }

    /// What kept `loam up` from running.
    pub fn of_start(error: anyhow::Error) -> Trouble {
        let exit = if error.is::<crate::up::settings::SettingsError>() { Exit::Usage } else { Exit::Failed };
        Trouble::new(exit, format!("{error:#}"))
    }

    /// Tells it: a sentence on stderr, or an object on stdout, unless there is one already.
    pub(super) fn tell(&self, json: bool) -> ExitCode {
        let code = self.exit as u8;
        if json && !self.told {
            let mut error = json!({ "exit_code": code, "message": self.sentence });
            if let Some(kind) = self.kind {
                error["kind"] = kind.into();
            }
            println!("{}", json!({ "outcome": "failed", "error": error }));
        } else {
            eprintln!("loam: {}", self.sentence);
        }
        ExitCode::from(code)
    }
}
