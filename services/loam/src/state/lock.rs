//! One supervisor for each state directory: the lock is the kernel's, so it ends with the process however that ends.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::{State, StateDirError};

/// Held while the supervisor runs.
#[derive(Debug)]
pub struct Lock {
    _held: Flock<File>,
}

/// Locks the directory.
pub fn take(state: &State) -> Result<Lock, StateDirError> {
    let path = state.run().join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(StateDirError::disk("opening", &path))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(held) => Ok(Lock { _held: held }),
        Err((_, Errno::EWOULDBLOCK)) => Err(StateDirError::Locked { path: state.root().into() }),
        Err((_, errno)) => Err(StateDirError::disk("locking", &path)(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_supervisors_never_share_a_state_directory() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = State::at(folder.path());
        state.prepare().expect("made");
        let first = take(&state).expect("free");
        let error = take(&state).expect_err("taken").to_string();
        assert!(error.contains("another `loam up` runs on"), "{error}");
        drop(first);
        take(&state).expect("free again");
    }
}
