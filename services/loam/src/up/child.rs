//! A process that dies with its supervisor.
//!
//! Only a process itself can ask the kernel to kill it when its parent dies. So `loam up` starts its own executable first
//! (`loam __exec`), which asks for that and then becomes the program: the process id stays.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

/// The first argument that makes `loam` become another program.
pub const EXEC: &str = "__exec";
/// The running executable, whatever happened to its file since.
pub const SELF_EXE: &str = "/proc/self/exe";

/// A program with its arguments and variables.
#[derive(Clone, Debug)]
pub struct LaunchSpec {
    /// Its name in log files and in the status view.
    pub name: String,
    /// The executable.
    pub program: PathBuf,
    args: Vec<OsString>,
    variables: Vec<(&'static str, OsString)>,
}

impl LaunchSpec {
    /// A program without arguments.
    pub fn of(name: &str, program: &Path) -> LaunchSpec {
        LaunchSpec { name: name.into(), program: program.into(), args: Vec::new(), variables: Vec::new() }
    }

    /// Adds an argument. Never a secret: everybody on the host can read arguments.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> LaunchSpec {
        self.args.push(argument.as_ref().into());
        self
    }

    /// Sets a variable. Never a secret.
    pub fn variable(mut self, name: &'static str, value: impl AsRef<OsStr>) -> LaunchSpec {
        self.variables.push((name, value.as_ref().into()));
        self
    }

    /// Starts it through `self_exe`; its output goes into the log. It has a process group of its own, so that Ctrl-C
    /// reaches `loam up` alone, which ends everything in order.
    pub fn start(&self, self_exe: &Path, log: File) -> std::io::Result<tokio::process::Child> {
        let mut command = tokio::process::Command::new(self_exe);
        command.arg(EXEC).arg(std::process::id().to_string()).arg(&self.program).args(&self.args);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.process_group(0).kill_on_drop(true).spawn()
    }
}

/// Becomes the program: `loam __exec PARENT PROGRAM ARGS...`. Returns only if that fails.
pub fn become_program(mut arguments: impl Iterator<Item = OsString>) -> String {
    let parent = arguments.next().and_then(|text| text.to_str()?.parse::<i32>().ok());
    let (Some(parent), Some(program)) = (parent, arguments.next()) else {
        return format!("{EXEC} is for `loam up` alone");
    };
    if let Err(error) = set_pdeathsig(Signal::SIGKILL) {
        return format!("asking to end together with `loam up`: {error}");
    }
    // A parent that died before that call is not noticed by the kernel.
    if getppid() != Pid::from_raw(parent) {
        return "`loam up` ended meanwhile".into();
    }
    let error = Command::new(&program).args(arguments).exec();
    format!("starting {}: {error}", program.display())
}
