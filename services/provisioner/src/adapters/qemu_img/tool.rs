//! Running QEMU's programs: with a deadline, without a terminal, with the beginning of their error output kept.

use std::ffi::OsStr;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

use crate::ports::DiskError;

/// How many characters of a program's error output are kept.
const ERROR_OUTPUT_MAX: usize = 600;

/// Runs a program to its end and returns its output. It is killed at its deadline, or when the caller stops waiting.
///
/// # Errors
/// [`DiskError::QemuImgFailed`] when it cannot be started, takes too long or ends badly.
pub(crate) async fn run<I, A>(
    attempt: &str,
    program: &str,
    arguments: I,
    within: Duration,
) -> Result<Vec<u8>, DiskError>
where
    I: IntoIterator<Item = A>,
    A: AsRef<OsStr>,
{
    let output = output_of(attempt, program, arguments, within).await?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let text: String = text.trim().chars().take(ERROR_OUTPUT_MAX).collect();
    Err(failed(attempt, format!("{program} ended with {}: {text}", output.status)))
}

/// The same, for a caller that reads its exit status.
///
/// # Errors
/// [`DiskError::QemuImgFailed`] when it cannot be started or takes too long.
pub(super) async fn output_of<I, A>(
    attempt: &str,
    program: &str,
    arguments: I,
    within: Duration,
) -> Result<Output, DiskError>
where
    I: IntoIterator<Item = A>,
    A: AsRef<OsStr>,
{
    let failed = |reason| failed(attempt, reason);
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(within, command.output()).await {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(failed(format!("{program} is not installed (Debian: qemu-utils, util-linux)")))
        }
        Ok(Err(error)) => Err(failed(format!("{program} cannot be started: {error}"))),
        Err(_) => Err(failed(format!("{program} took longer than {} s", within.as_secs()))),
    }
}

fn failed(attempt: &str, reason: String) -> DiskError {
    DiskError::QemuImgFailed { attempt: attempt.to_owned(), source: reason.into() }
}
