//! libvirt's domain states as power states.

use contract::provisioner::PauseReason;
use provisioner_domain::PowerState;
use provisioner_libvirt::power::{DomainState, PauseReason as DomainPause};

/// The power state of a domain; `None` where libvirt knows none. Pauses that libvirt ends by itself are no pauses of the
/// VM: it goes on in a moment.
pub(super) fn power_of(state: Option<DomainState>) -> PowerState {
    match state {
        None => PowerState::Missing,
        Some(DomainState::Running | DomainState::ShuttingDown) => PowerState::Running,
        Some(DomainState::Paused(DomainPause::Starting | DomainPause::Saving | DomainPause::Migration)) => {
            PowerState::Running
        }
        Some(DomainState::Paused(reason)) => PowerState::Paused(reason_of(reason)),
        Some(DomainState::Off | DomainState::Crashed) => PowerState::Off,
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
        assert_eq!(paused(DomainPause::NoSpace), PowerState::Paused(PauseReason::NoSpace));
        assert_eq!(paused(DomainPause::User), PowerState::Paused(PauseReason::User));
        assert_eq!(paused(DomainPause::Watchdog), PowerState::Paused(PauseReason::Other));
        assert_eq!(paused(DomainPause::Saving), PowerState::Running);
        assert_eq!(power_of(None), PowerState::Missing);
    }
}
