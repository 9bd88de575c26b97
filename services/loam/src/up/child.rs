//! A process that dies with us.
//!
//! The kernel can be asked to kill a process when its parent dies, but only by the process itself. So we start our
//! own executable first (`loam __exec`), which asks for that and then becomes the program: the process id stays.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

/// The first argument by which `loam` knows that it is to become another program.
pub const BECOME: &str = "__exec";
/// Our own executable, whatever happened to its file since.
pub const OURSELVES: &str = "/proc/self/exe";

/// A program with its arguments and variables.
#[derive(Clone, Debug)]
pub struct Launch {
    /// What we call it.
    pub name: String,
    /// The executable.
    pub program: PathBuf,
    args: Vec<OsString>,
    variables: Vec<(&'static str, OsString)>,
}

impl Launch {
    /// Names a program.
    pub fn of(name: &str, program: &Path) -> Launch {
        Launch { name: name.into(), program: program.into(), args: Vec::new(), variables: Vec::new() }
    }

    /// Adds an argument. Secrets never go here: everybody on the host can read arguments.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Launch {
        self.args.push(argument.as_ref().into());
        self
    }

    /// Sets a variable. Secrets do not go here either.
    pub fn variable(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Launch {
        self.variables.push((name, value.as_ref().into()));
        self
    }

    /// Starts it by way of `ourselves`; what it says goes into the log. It has a process group of its own, so that
    /// Ctrl-C reaches us alone and we end everything in order.
    pub fn start(&self, ourselves: &Path, log: File) -> std::io::Result<tokio::process::Child> {
        let mut command = tokio::process::Command::new(ourselves);
        command.arg(BECOME).arg(std::process::id().to_string()).arg(&self.program).args(&self.args);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.process_group(0).kill_on_drop(true).spawn()
    }
}

/// Becomes the program named: `loam __exec PARENT PROGRAM ARGS...`. Comes back only if that fails.
pub fn become_program(mut arguments: impl Iterator<Item = OsString>) -> String {
    let parent = arguments.next().and_then(|text| text.to_str()?.parse::<i32>().ok());
    let (Some(parent), Some(program)) = (parent, arguments.next()) else {
        return format!("{BECOME} is for `loam up` alone");
    };
    if let Err(error) = set_pdeathsig(Signal::SIGKILL) {
        return format!("asking to end together with `loam up`: {error}");
    }
    // Whoever died before that call cannot be followed any more.
    if getppid() != Pid::from_raw(parent) {
        return "`loam up` ended meanwhile".into();
    }
    let error = Command::new(&program).args(arguments).exec();
    format!("starting {}: {error}", program.display())
}
