//! File descriptors: as many as the kernel lets us have, and a problem in health before the last one is used.

use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

use crate::health::PartCheck;

/// More are never needed; a limit of billions makes programs slow that close every descriptor they could have.
const LIMIT_MAX: rlim_t = 1 << 20;
/// Part of the limit above which health says so: the next connections and files still work.
const FULL_PERCENT: u64 = 80;

/// Raises the soft limit to the hard one. A process that may not goes on with what it has.
pub(crate) fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let wanted = hard.min(LIMIT_MAX);
        if wanted > soft { setrlimit(Resource::RLIMIT_NOFILE, wanted, hard) } else { Ok(()) }
    });
    if let Err(errno) = raised {
        tracing::warn!(%errno, "the limit of file descriptors stays as it is");
    }
}

/// A service that runs out of descriptors cannot open a file or a connection: health says so before.
pub(crate) fn check_descriptors() -> PartCheck {
    Arc::new(|| Box::pin(std::future::ready(problem())))
}

fn problem() -> Option<String> {
    // The listing itself takes one.
    let used = std::fs::read_dir("/proc/self/fd").map(|open| open.count().saturating_sub(1));
    match (used, getrlimit(Resource::RLIMIT_NOFILE)) {
        (Ok(used), Ok((limit, _))) => nearly_full(used as u64, limit),
        (Err(error), _) => Some(format!("they cannot be counted: {error}")),
        (_, Err(errno)) => Some(format!("their limit is not known: {errno}")),
    }
}

fn nearly_full(used: u64, limit: u64) -> Option<String> {
    let full = u128::from(used) * 100 >= u128::from(limit) * u128::from(FULL_PERCENT);
    full.then(|| format!("{used} of {limit} file descriptors are in use"))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn four_of_five_descriptors_are_too_many() {
        assert_eq!(nearly_full(799, 1000), None);
        assert_eq!(nearly_full(800, 1000).as_deref(), Some("800 of 1000 file descriptors are in use"));
        assert_eq!(nearly_full(u64::MAX / 2, u64::MAX), None);
    }

    #[test]
    fn the_limit_is_raised_and_a_process_that_runs_out_says_so() {
        raise_limit();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("known");
        assert_eq!(soft, hard.min(LIMIT_MAX).max(soft));
        assert_eq!(problem(), None);
        let open: Vec<File> = (0..100).map(|_| File::open("/dev/null").expect("opened")).collect();
        setrlimit(Resource::RLIMIT_NOFILE, 120, hard).expect("lowered");
        assert!(problem().is_some_and(|problem| problem.contains("of 120 file descriptors")));
        drop(open);
        raise_limit();
        assert_eq!(problem(), None);
    }
}
