//! Running QEMU's programs: with a deadline, without a terminal, with their last words kept.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::ports::DiskError;

/// How much of a program's complaint is kept.
const LAST_WORDS_MAX: usize = 600;

/// Runs a program to its end and gives back what it wrote. It is killed when its time is over, or when nobody waits
/// for it any more.
///
/// # Errors
/// [`DiskError::Tool`] when it cannot be started, takes too long or ends badly.
pub(crate) async fn run<I, A>(
    attempting: &str,
    program: &str,
    arguments: I,
    within: Duration,
) -> Result<Vec<u8>, DiskError>
where
    I: IntoIterator<Item = A>,
    A: AsRef<OsStr>,
{
    let failed = |reason: String| DiskError::Tool { attempting: attempting.to_owned(), reason };
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(within, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(failed(format!("{program} is not installed (Debian: qemu-utils)")));
        }
        Ok(Err(error)) => return Err(failed(format!("{program} cannot be started: {error}"))),
        Err(_) => {
            return Err(failed(format!("{program} took longer than {} s", within.as_secs())));
        }
    };
    if output.status.success() {
        return Ok(output.stdout);
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let words: String = words.trim().chars().take(LAST_WORDS_MAX).collect();
    Err(failed(format!("{program} ended with {}: {words}", output.status)))
}
