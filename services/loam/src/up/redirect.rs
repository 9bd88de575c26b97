//! While `loam up` runs, the terminal belongs to the status view: its own log lines go into a file, as those of services.

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::unistd::dup2_stderr;

use super::log;

/// Restores standard error when dropped.
#[derive(Debug)]
pub(super) struct StderrRedirectGuard {
    stderr: OwnedFd,
}

/// Redirects standard error into a log file.
pub(super) fn stderr_into(path: &Path) -> std::io::Result<StderrRedirectGuard> {
    use std::os::fd::AsFd;
    let file = log::open(path)?;
    let stderr = std::io::stderr().as_fd().try_clone_to_owned()?;
    dup2_stderr(&file)?;
    Ok(StderrRedirectGuard { stderr })
}

impl Drop for StderrRedirectGuard {
    fn drop(&mut self) {
        if let Err(error) = dup2_stderr(&self.stderr) {
            tracing::error!(%error, "standard error cannot be restored");
        }
    }
}
