//! What is asked of the inside of a machine.

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use contract::provisioner::Script;

/// A guest to be entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Where it is.
    pub address: IpAddr,
    /// The UUID of its machine.
    pub uuid: String,
    /// Its host key, where it was seen before; another one is not let in.
    pub host_key: Option<String>,
}

/// A script and what it is told.
#[derive(Clone, Debug)]
pub struct ScriptRun<'a> {
    /// Which of the machine's scripts it is; a script that has run to its good end does not run again.
    pub at: usize,
    /// The script.
    pub script: &'a Script,
    /// Its variables.
    pub env: &'a std::collections::BTreeMap<String, String>,
    /// How long it may take.
    pub within: Duration,
}

/// Why the inside of a guest was not reached, or did not do its work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShellError {
    /// Nobody answers, or not to us: it may still be booting.
    #[error("{0}")]
    Unreachable(String),
    /// Somebody else answers.
    #[error("the guest at {address} shows another host key than before: {seen}, not {known}")]
    HostKeyChanged {
        /// Where.
        address: IpAddr,
        /// The key it shows.
        seen: String,
        /// The key it had.
        known: String,
    },
    /// A script ended badly.
    #[error("script {name} ended with status {status}: {tail}")]
    Script {
        /// The script.
        name: String,
        /// Its exit status.
        status: u32,
        /// The last lines it wrote.
        tail: String,
    },
    /// A script took too long.
    #[error("script {name} did not end within {} s: {tail}", .within.as_secs())]
    Slow {
        /// The script.
        name: String,
        /// How long it had.
        within: Duration,
        /// The last lines it wrote.
        tail: String,
    },
}

/// Enters guests.
#[async_trait]
pub trait GuestShell: Send + Sync + 'static {
    /// Our public key, in one line as OpenSSH writes it.
    fn authorized_key(&self) -> &str;
    /// Enters once and leaves: tells the guest's host key.
    async fn reach(&self, guest: &Guest) -> Result<String, ShellError>;
    /// Runs a script to its end; what it writes goes to the log.
    async fn run(&self, guest: &Guest, script: &ScriptRun<'_>) -> Result<(), ShellError>;
}
