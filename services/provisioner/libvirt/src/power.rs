//! What a domain is doing, why it is paused, and how it is suspended and resumed.
//!
//! ```text
//!            +--- suspend, or a write finds no space on the host ---> Paused(User | NoSpace | ...)
//!            | <------------------------ resume --------------------------+
//!   Running -+
//!            +--- the guest shuts down ---> ShuttingDown ---> Off
//!            +--- the guest panics, QEMU dies ------------------> Crashed
//! ```
//!
//! QEMU pauses a guest by itself when a write finds no space on the host: the guest sees no error, and once there is
//! room a [`Connection::resume`] repeats the write. libvirt calls every such pause an I/O error, or gives no reason;
//! the disks know whether it was space ([`Connection::disk_errors`]).

use std::fmt;

use uuid::Uuid;
use virt::domain::{
    Domain, DomainPausedReason, DomainPausedReasonEnum, DomainShutoffReason, DomainStateReason,
};
use virt::enumutil::Enum;
use virt::error::Error as LibvirtError;
use virt::sys;

use crate::connection::{Connection, EnsureOutcome};
use crate::deadline::CallClass;
use crate::error::{Error, known};
use crate::raw;

/// What a defined domain is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DomainState {
    /// It executes.
    Running,
    /// It has a process, and its processors stand still.
    Paused(PauseReason),
    /// The guest is on its way down.
    ShuttingDown,
    /// It has no process, and ended as it should.
    Off,
    /// The guest has panicked, or its process has died.
    Crashed,
}

/// Why a domain is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PauseReason {
    /// A caller of libvirt asked for it, as `virsh suspend` does.
    User,
    /// A write found no space on the host. Resume when there is room.
    NoSpace,
    /// A disk failed otherwise.
    IoError,
    /// It starts; libvirt lets it run in a moment.
    Starting,
    /// libvirt saves, dumps or snapshots it, and then goes on.
    Saving,
    /// It moves to another host, or from one.
    Migration,
    /// A postcopy migration broke: part of its memory is on another host.
    MigrationFailed,
    /// The guest has panicked, and its process was kept.
    Crashed,
    /// Its watchdog fired.
    Watchdog,
    /// The guest sleeps (ACPI S3) and can be woken.
    Sleeping,
    /// It was started from a snapshot of a paused domain.
    Snapshot,
    /// libvirt paused it for a job of its own, and could not let it run again.
    ResumeFailed,
    /// libvirt gives no reason, or one that this crate does not know.
    Unknown,
}

impl fmt::Display for PauseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PauseReason::User => "suspended by request",
            PauseReason::NoSpace => "no space left on the host for a disk",
            PauseReason::IoError => "I/O error of a disk",
            PauseReason::Starting => "starting",
            PauseReason::Saving => "being saved",
            PauseReason::Migration => "migrating",
            PauseReason::MigrationFailed => "failed postcopy migration",
            PauseReason::Crashed => "guest panic",
            PauseReason::Watchdog => "watchdog fired",
            PauseReason::Sleeping => "guest sleeps",
            PauseReason::Snapshot => "started from a snapshot of a paused machine",
            PauseReason::ResumeFailed => "libvirt could not resume it after a job",
            PauseReason::Unknown => "unknown",
        })
    }
}

/// A disk whose last request failed and stopped its domain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DiskError {
    /// The disk's target in its domain (`vda`).
    pub target: String,
    /// Whether the host's file system had no space; otherwise any other I/O error.
    pub no_space: bool,
}

impl Connection {
    /// What the domain is doing; `None` when libvirt does not know it.
    ///
    /// # Errors
    /// What any call may meet.
    pub fn power(&mut self, uuid: Uuid) -> Result<Option<DomainState>, Error> {
        let state = self.call(CallClass::Query, &format!("get the state of domain {uuid}"), |connect| {
            known(connect.lookup_domain_by_uuid(uuid))?.map(|domain| state_of(&domain)).transpose()
        })?;
        Ok(state.map(|power| self.with_disks_checked(uuid, power)))
    }

    /// The disks that stopped a domain. Empty when it is not paused. QEMU keeps a disk's first error until the domain is
    /// off: one that was paused for lack of space before shows it again in a later pause for another reason.
    ///
    /// # Errors
    /// [`Error::NotFound`] without such a domain; [`Error::DomainBusy`] while another job holds it.
    pub fn disk_errors(&mut self, uuid: Uuid) -> Result<Vec<DiskError>, Error> {
        let attempt = format!("get the disk errors of domain {uuid}");
        self.with_domain(CallClass::Monitor, &attempt, uuid, |_, domain| {
            if !matches!(state_of(domain)?, DomainState::Paused(_)) {
                return Ok(Vec::new());
            }
            let found = raw::disk_errors(domain)?.into_iter();
            Ok(found
                .map(|(target, code)| DiskError {
                    target,
                    no_space: code == sys::VIR_DOMAIN_DISK_ERROR_NO_SPACE,
                })
                .collect())
        })
    }

    /// Stops the domain's processors; its process and its memory stay. A domain that is paused for whatever reason is
    /// left as it is.
    ///
    /// # Errors
    /// [`Error::NotFound`] without such a domain; [`Error::WrongState`] when it is off.
    pub fn suspend(&mut self, uuid: Uuid) -> Result<EnsureOutcome, Error> {
        self.with_domain(CallClass::Monitor, &format!("suspend domain {uuid}"), uuid, |_, domain| {
            let is_paused = || Ok::<_, LibvirtError>(matches!(state_of(domain)?, DomainState::Paused(_)));
            if is_paused()? {
                return Ok(EnsureOutcome::AlreadyInPlace);
            }
            match domain.suspend() {
                // Another caller was faster, between our two calls.
                Err(_) if is_paused()? => Ok(EnsureOutcome::AlreadyInPlace),
                suspended => suspended.map(|()| EnsureOutcome::Changed),
            }
        })
    }

    /// Lets a paused domain run, and wakes one that sleeps. After a pause for lack of space QEMU repeats the write;
    /// where there still is no space the domain is paused again at once.
    ///
    /// # Errors
    /// [`Error::NotFound`] without such a domain; [`Error::WrongState`] when it is off, or in the middle of a migration.
    pub fn resume(&mut self, uuid: Uuid) -> Result<EnsureOutcome, Error> {
        self.with_domain(CallClass::Monitor, &format!("resume domain {uuid}"), uuid, |_, domain| {
            let is_running = |power| power == DomainState::Running;
            let before = state_of(domain)?;
            if is_running(before) {
                return Ok(EnsureOutcome::AlreadyInPlace);
            }
            let resumed = match before {
                DomainState::Paused(PauseReason::Sleeping) => domain.pm_wakeup(0),
                _ => domain.resume(),
            };
            match resumed {
                // Another caller was faster, between our two calls.
                Err(_) if is_running(state_of(domain)?) => Ok(EnsureOutcome::AlreadyInPlace),
                resumed => resumed.map(|()| EnsureOutcome::Changed),
            }
        })
    }

    /// Finds out from the disks whether one of them paused a domain, and why. The query of the disks may fail where
    /// that of the state did not: then the reason stays what libvirt says.
    pub(crate) fn with_disks_checked(&mut self, uuid: Uuid, power: DomainState) -> DomainState {
        self.ask_disks(uuid, power).unwrap_or(power)
    }

    /// The same; `None` where the disks did not answer.
    pub(crate) fn ask_disks(&mut self, uuid: Uuid, power: DomainState) -> Option<DomainState> {
        // Where a disk fails in the moment of a resume, libvirt notices the pause and not its reason.
        if !matches!(power, DomainState::Paused(PauseReason::IoError | PauseReason::Unknown)) {
            return Some(power);
        }
        match self.disk_errors(uuid) {
            Ok(disks) if disks.iter().any(|disk| disk.no_space) => {
                Some(DomainState::Paused(PauseReason::NoSpace))
            }
            Ok(disks) if !disks.is_empty() => Some(DomainState::Paused(PauseReason::IoError)),
            Ok(_) => Some(power),
            Err(error) => {
                tracing::warn!(%uuid, %error, "cannot find out which disk paused a domain");
                None
            }
        }
    }
}

/// What libvirt knows without asking QEMU: a lack of space is an I/O error or an unknown reason still.
pub(crate) fn state_of(domain: &Domain) -> Result<DomainState, LibvirtError> {
    let (_, reason) = domain.state()?;
    Ok(match reason {
        Enum::Known(reason) => power_of(reason),
        // A state newer than this crate: taken for one with a process, so that nobody starts a second.
        Enum::Unknown(_) => DomainState::Running,
    })
}

fn power_of(reason: DomainStateReason) -> DomainState {
    match reason {
        DomainStateReason::Running(_) | DomainStateReason::Blocked(_) | DomainStateReason::NoState(_) => {
            DomainState::Running
        }
        DomainStateReason::Paused(reason) => paused_for(reason),
        DomainStateReason::PMSuspended(_) => DomainState::Paused(PauseReason::Sleeping),
        DomainStateReason::Shutdown(_) => DomainState::ShuttingDown,
        DomainStateReason::Shutoff(reason) if reason.is(DomainShutoffReason::Crashed) => DomainState::Crashed,
        DomainStateReason::Shutoff(_) => DomainState::Off,
        DomainStateReason::Crashed(_) => DomainState::Crashed,
    }
}

fn paused_for(reason: DomainPausedReasonEnum) -> DomainState {
    DomainState::Paused(match reason.unwrap_or(DomainPausedReason::Unknown) {
        // The guest has ended; its process is about to.
        DomainPausedReason::ShuttingDown => return DomainState::ShuttingDown,
        DomainPausedReason::User => PauseReason::User,
        DomainPausedReason::IOError => PauseReason::IoError,
        DomainPausedReason::StartingUp => PauseReason::Starting,
        DomainPausedReason::Save | DomainPausedReason::Dump | DomainPausedReason::Snapshot => {
            PauseReason::Saving
        }
        DomainPausedReason::Migration | DomainPausedReason::PostCopy => PauseReason::Migration,
        DomainPausedReason::PostCopyFailed => PauseReason::MigrationFailed,
        DomainPausedReason::Crashed => PauseReason::Crashed,
        DomainPausedReason::Watchdog => PauseReason::Watchdog,
        DomainPausedReason::FromSnapshot => PauseReason::Snapshot,
        DomainPausedReason::APIError => PauseReason::ResumeFailed,
        DomainPausedReason::Unknown => PauseReason::Unknown,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paused(reason: DomainPausedReason) -> DomainState {
        power_of(DomainStateReason::Paused(Enum::Known(reason)))
    }

    fn off(reason: DomainShutoffReason) -> DomainState {
        power_of(DomainStateReason::Shutoff(Enum::Known(reason)))
    }

    #[test]
    fn a_pause_by_request_and_one_by_a_disk_are_different() {
        assert_eq!(paused(DomainPausedReason::User), DomainState::Paused(PauseReason::User));
        assert_eq!(paused(DomainPausedReason::IOError), DomainState::Paused(PauseReason::IoError));
    }

    #[test]
    fn a_reason_from_a_newer_libvirt_is_a_pause_without_a_known_reason() {
        let newer = power_of(DomainStateReason::Paused(Enum::Unknown(99)));
        assert_eq!(newer, DomainState::Paused(PauseReason::Unknown));
    }

    #[test]
    fn a_process_that_died_and_one_that_ended_are_different() {
        assert_eq!(off(DomainShutoffReason::Crashed), DomainState::Crashed);
        assert_eq!(off(DomainShutoffReason::Shutdown), DomainState::Off);
        assert_eq!(off(DomainShutoffReason::Destroyed), DomainState::Off);
        assert_eq!(paused(DomainPausedReason::ShuttingDown), DomainState::ShuttingDown);
    }
}
