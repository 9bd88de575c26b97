//! libvirt's domain states as power states.

use contract::provisioner::PauseReason;
use provisioner_domain::Power;
use provisioner_libvirt::power::{PauseReason as DomainPause, Power as DomainState};

/// The power state of a domain; `None` where libvirt knows none. Pauses that libvirt ends by itself are no pauses of the
/// VM: it goes on in a moment.
pub(super) fn power_of(state: Option<DomainState>) -> Power {
    match state {
        None => Power::Missing,
        Some(DomainState::Running | DomainState::ShuttingDown) => Power::Running,
        Some(DomainState::Paused(DomainPause::Starting | DomainPause::Saving | DomainPause::Migration)) => {
            Power::Running
        }
        Some(DomainState::Paused(reason)) => Power::Paused(reason_of(reason)),
        Some(DomainState::Off | DomainState::Crashed) => Power::Off,
    }
}

fn reason_of(reason: DomainPause) -> PauseReason {
    match reason {
        DomainPause::User => PauseReason::User,
        DomainPause::NoSpace => PauseReason::NoSpace,
        DomainPause::IoError => PauseReason::IoError,
        _ => PauseReason::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_keeps_its_reason_and_one_that_ends_by_itself_is_none() {
        let paused = |reason| power_of(Some(DomainState::Paused(reason)));
        assert_eq!(paused(DomainPause::NoSpace), Power::Paused(PauseReason::NoSpace));
        assert_eq!(paused(DomainPause::User), Power::Paused(PauseReason::User));
        assert_eq!(paused(DomainPause::Watchdog), Power::Paused(PauseReason::Other));
        assert_eq!(paused(DomainPause::Saving), Power::Running);
        assert_eq!(power_of(None), Power::Missing);
    }
}
