//! How a command ends: one code a kind of end, one sentence for people, one object for programs.

use std::process::ExitCode;

use serde_json::json;

/// The codes, as `--help` shows them.
pub const TABLE: &str = "\
Exit codes:
  0    done
  1    failed, or begun and undone again
  2    wrong arguments or a wrong input file
  3    refused by the service asked
  4    the bus or the service cannot be reached
  5    stuck: a person must look at it
  130  interrupted; what was begun goes on";

/// A code of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It failed, or was undone.
    Failed = 1,
    /// Wrong arguments or input.
    Usage = 2,
    /// The service says no.
    Refused = 3,
    /// No bus, or nobody answers.
    Unreachable = 4,
    /// Neither done nor undone.
    Stuck = 5,
    /// Ctrl-C.
    Interrupted = 130,
}

/// Why a command did not end well.
#[derive(Debug)]
pub struct Trouble {
    exit: Exit,
    sentence: String,
    /// Whether the answer that was shown says it already.
    told: bool,
}

impl Trouble {
    /// A trouble of this kind, in one sentence.
    pub fn new(exit: Exit, sentence: impl Into<String>) -> Trouble {
        Trouble { exit, sentence: sentence.into(), told: false }
    }

    /// A trouble that the answer on stdout shows in full; programs are not told twice.
    pub fn told(exit: Exit, sentence: impl Into<String>) -> Trouble {
        Trouble { told: true, ..Trouble::new(exit, sentence) }
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

    /// Tells it: a sentence on stderr, or an object on stdout.
    pub(super) fn tell(&self, json: bool) -> ExitCode {
        let code = self.exit as u8;
        if json && self.told {
            return ExitCode::from(code);
        }
        if json {
            println!("{}", json!({ "error": { "exit_code": code, "message": self.sentence } }));
        } else {
            eprintln!("loam: {}", self.sentence);
        }
        ExitCode::from(code)
    }
}
