//! How a domain went off: in order, or as in a power cut.

use uuid::Uuid;
use virt::domain::{DomainShutoffReason, DomainStateReason};
use virt::enumutil::Enum;

use crate::connection::Connection;
use crate::deadline::CallClass;
use crate::error::{Error, known};

impl Connection {
    /// Whether a domain that is off went off in order: its guest shut down, and had written its disks. `None` where it is
    /// on or unknown, and where libvirt cannot tell: it forgets that when it or its host is started again.
    ///
    /// # Errors
    /// What any call may meet.
    pub fn went_off_in_order(&mut self, uuid: Uuid) -> Result<Option<bool>, Error> {
        let attempt = format!("find out how domain {uuid} went off");
        self.call(CallClass::Query, &attempt, |connect| {
            let Some(domain) = known(connect.lookup_domain_by_uuid(uuid))? else {
                return Ok(None);
            };
            let (_, reason) = domain.state()?;
            Ok(match reason {
                Enum::Known(reason) => off_in_order(reason),
                Enum::Unknown(_) => None,
            })
        })
    }
}

fn off_in_order(reason: DomainStateReason) -> Option<bool> {
    match reason {
        DomainStateReason::Shutoff(reason) => match reason.known()? {
            DomainShutoffReason::Shutdown => Some(true),
            DomainShutoffReason::Unknown => None,
            // By force, by a crash, or with its memory saved elsewhere.
            _ => Some(false),
        },
        DomainStateReason::Crashed(_) => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_guest_that_shut_down_has_written_its_disks() {
        let off = |reason| off_in_order(DomainStateReason::Shutoff(Enum::Known(reason)));
        assert_eq!(off(DomainShutoffReason::Shutdown), Some(true));
        assert_eq!(off(DomainShutoffReason::Unknown), None);
        for reason in [
            DomainShutoffReason::Destroyed,
            DomainShutoffReason::Crashed,
            DomainShutoffReason::Saved,
            DomainShutoffReason::Failed,
            DomainShutoffReason::Daemon,
        ] {
            assert_eq!(off(reason), Some(false), "{reason:?}");
        }
    }
}
