//! What lies in memory stays there.
//!
//! A core dump holds every key and disk block that the process had. Two settings of the kernel are needed to have none:
//!
//! ```text
//!   RLIMIT_CORE = 0           no core file; inherited by every program that we start. A `core_pattern` that pipes the
//!                             dump to a program is not bound by it (core(5))
//!   PR_SET_DUMPABLE = 0       no dump at all, piped neither, and no other process of the same user may attach or read
//!                             /proc/PID/mem. Ends with exec, so it protects this program alone (prctl(2))
//! ```
//!
//! Without privileges the files below `/proc/self` then belong to root. Whatever a process looks up about itself it may
//! still read; `/proc/self/oom_score_adj` and its like it can no longer write.

use nix::errno::Errno;
use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, setrlimit};

/// The kernel would not promise to leave no core dump of this process.
#[derive(Debug, thiserror::Error)]
pub enum CoreDumpError {
    /// The limit could not be lowered.
    #[error("could not lower the limit of core files to nothing")]
    Limit(#[source] Errno),
    /// The process could not be made undumpable.
    #[error("could not make this process undumpable")]
    SetNotDumpable(#[source] Errno),
}

/// From now on the kernel makes no core dump of this process, however it ends. The first thing that a `main` does: what
/// is read before can be dumped.
///
/// # Errors
/// When the kernel refuses, as under a system call filter that forbids it.
pub fn leave_no_core_dump() -> Result<(), CoreDumpError> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(CoreDumpError::Limit)?;
    set_dumpable(false).map_err(CoreDumpError::SetNotDumpable)
}

#[cfg(test)]
mod tests {
    use nix::sys::prctl::get_dumpable;
    use nix::sys::resource::getrlimit;

    use super::*;

    #[test]
    fn whoever_wants_no_core_dump_has_neither_a_file_nor_a_pipe_for_one() {
        leave_no_core_dump().expect("prctl allows it");
        assert_eq!(getrlimit(Resource::RLIMIT_CORE), Ok((0, 0)));
        assert_eq!(get_dumpable(), Ok(false));
        let exe =
            std::fs::read_link("/proc/self/exe").expect("what we look up about ourselves stays readable");
        assert_eq!(Some(exe), std::env::current_exe().ok());
        leave_no_core_dump().expect("twice is once");
    }
}
