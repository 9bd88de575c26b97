//! While we run, the terminal belongs to the board: our own log lines go into a file like everybody's.

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::unistd::dup2_stderr;

use super::log;

/// Gives stderr back when dropped.
#[derive(Debug)]
pub(super) struct Redirected {
    stderr: OwnedFd,
}

/// Leads stderr into a log file.
pub(super) fn into(path: &Path) -> std::io::Result<Redirected> {
    use std::os::fd::AsFd;
    let file = log::open(path)?;
    let stderr = std::io::stderr().as_fd().try_clone_to_owned()?;
    dup2_stderr(&file)?;
    Ok(Redirected { stderr })
}

impl Drop for Redirected {
    fn drop(&mut self) {
        if let Err(error) = dup2_stderr(&self.stderr) {
            tracing::error!(%error, "stderr cannot be given back");
        }
    }
}
