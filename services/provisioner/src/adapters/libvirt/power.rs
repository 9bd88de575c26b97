//! libvirt's domain states as power states.

use contract::provisioner::PauseReason;
use provisioner_domain::Power;
use provisioner_libvirt::lifecycle::Power as DomainState;

/// The power state of a domain; `None` where libvirt knows none.
pub(super) fn power_of(state: Option<DomainState>) -> Power {
    match state {
        None => Power::Missing,
        Some(DomainState::Running | DomainState::ShuttingDown) => Power::Running,
        // `provisioner-libvirt` does not report reasons yet.
        Some(DomainState::Paused) => Power::Paused(PauseReason::Other),
        Some(DomainState::Off | DomainState::Crashed) => Power::Off,
    }
}
