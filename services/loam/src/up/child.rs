//! A process that dies with its supervisor, and runs as its own user.
//!
//! Only a process itself can ask the kernel to kill it when its parent dies. So `loam up` starts its own executable first
//! (`loam __exec`), which gives up what the program does not need, asks for that end and then becomes the program: the
//! process id stays. The program gets no privileges later, whatever it starts.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::{OFlag, open};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Pid, Uid, fexecve, getppid, setgroups, setresgid, setresuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_keep_capabilities, set_no_new_privs,
};

/// The first argument that makes `loam` become another program.
pub const EXEC: &str = "__exec";
/// The running executable, whatever happened to its file since.
pub const SELF_EXE: &str = "/proc/self/exe";

/// Stands for: the user that we are.
const SAME_USER: &str = "-";

/// Who a process runs as, and what it may do beyond that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessUser {
    /// The user.
    pub uid: u32,
    /// The group; there is no other.
    pub gid: u32,
    /// What of root's rights it has.
    pub capabilities: CapabilitySet,
}

impl ProcessUser {
    fn to_argument(self) -> String {
        format!("{}:{}:{}", self.uid, self.gid, self.capabilities.bits())
    }

    fn from_argument(text: &str) -> Option<ProcessUser> {
        let mut numbers = text.split(':');
        let (uid, gid) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        let capabilities = CapabilitySet::from_bits_retain(numbers.next()?.parse().ok()?);
        numbers.next().is_none().then_some(ProcessUser { uid, gid, capabilities })
    }

    /// Becomes this user, for good.
    fn become_it(self) -> std::io::Result<()> {
        let kept = self.capabilities & capabilities(None)?.permitted;
        let each = || (0..u64::BITS).map(|bit| CapabilitySet::from_bits_retain(1 << bit));
        // Those that the kernel does not know are in no set.
        for capability in each().filter(|one| capability_is_in_bounding_set(*one).unwrap_or(false)) {
            if !kept.contains(capability) {
                remove_capability_from_bounding_set(capability)?;
            }
        }
        set_keep_capabilities(true)?;
        setgroups(&[])?;
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)?;
        set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: kept })?;
        clear_ambient_capability_set()?;
        for capability in each().filter(|one| kept.contains(*one)) {
            configure_capability_in_ambient_set(capability, true)?;
        }
        Ok(())
    }
}

/// A program with its arguments and variables.
#[derive(Clone, Debug)]
pub struct LaunchSpec {
    /// Its name in log files and in the status view.
    pub name: String,
    /// The executable.
    pub program: PathBuf,
    args: Vec<OsString>,
    variables: Vec<(&'static str, OsString)>,
    user: Option<ProcessUser>,
}

impl LaunchSpec {
    /// A program without arguments.
    pub fn of(name: &str, program: &Path) -> LaunchSpec {
        let (args, variables) = (Vec::new(), Vec::new());
        LaunchSpec { name: name.into(), program: program.into(), args, variables, user: None }
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

    /// Runs it as another user; as ours where there is none.
    pub fn as_user(mut self, user: Option<ProcessUser>) -> LaunchSpec {
        self.user = user;
        self
    }

    /// Starts it through `self_exe`; its output goes into the log. It has a process group of its own, so that Ctrl-C
    /// reaches `loam up` alone, which ends everything in order.
    pub fn start(&self, self_exe: &Path, log: File) -> std::io::Result<tokio::process::Child> {
        let mut command = tokio::process::Command::new(self_exe);
        let user = self.user.map_or_else(|| SAME_USER.into(), ProcessUser::to_argument);
        command.arg(EXEC).arg(std::process::id().to_string()).arg(user).arg(&self.program).args(&self.args);
        // What systemd is to know of `loam up` is not for its children to send.
        for variable in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
            command.env_remove(variable);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.process_group(0).kill_on_drop(true).spawn()
    }
}

/// Becomes the program: `loam __exec PARENT USER PROGRAM ARGS...`. Returns only if that fails.
pub fn become_program(mut arguments: impl Iterator<Item = OsString>) -> String {
    let parent = arguments.next().and_then(|text| text.to_str()?.parse::<i32>().ok());
    let user = arguments.next().and_then(|text| match text.to_str()? {
        SAME_USER => Some(None),
        text => ProcessUser::from_argument(text).map(Some),
    });
    let (Some(parent), Some(user), Some(program)) = (parent, user, arguments.next()) else {
        return format!("{EXEC} is for `loam up` alone");
    };
    // Root may get there where the user may not: a program that was built in somebody's home.
    let file =
        user.and_then(|_| open(Path::new(&program), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).ok());
    if let Err(error) = user.map_or(Ok(()), ProcessUser::become_it) {
        return format!("becoming the user of {}: {error}", program.display());
    }
    if let Err(error) = set_no_new_privs(true) {
        return format!("giving up new privileges: {error}");
    }
    // After the change of user, which takes it back.
    if let Err(error) = set_pdeathsig(Signal::SIGKILL) {
        return format!("asking to end together with `loam up`: {error}");
    }
    // A parent that died before that call is not noticed by the kernel.
    if getppid() != Pid::from_raw(parent) {
        return "`loam up` ended meanwhile".into();
    }
    let arguments: Vec<OsString> = arguments.collect();
    let mut error = Command::new(&program).args(&arguments).exec();
    if let (Some(file), std::io::ErrorKind::PermissionDenied) = (file, error.kind()) {
        error = execute(&file, &program, &arguments).unwrap_or_else(|error| error);
    }
    format!("starting {}: {error}", program.display())
}

/// Becomes a program that is open; why that failed.
fn execute(
    file: &OwnedFd,
    program: &OsStr,
    arguments: &[OsString],
) -> Result<std::io::Error, std::io::Error> {
    let text = |text: &OsStr| CString::new(text.as_bytes()).map_err(std::io::Error::from);
    let arguments: Result<Vec<_>, _> =
        std::iter::once(program).chain(arguments.iter().map(OsString::as_os_str)).map(text).collect();
    let variable = |(mut name, value): (OsString, OsString)| {
        name.push("=");
        name.push(value);
        text(&name)
    };
    let variables: Result<Vec<_>, _> = std::env::vars_os().map(variable).collect();
    match fexecve(file, &arguments?, &variables?) {
        Ok(never) => match never {},
        Err(errno) => Ok(errno.into()),
    }
}
