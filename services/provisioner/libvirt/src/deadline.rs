//! How long a call may take before it is worth a warning, and before its connection is cut.

use std::time::Duration;

/// What kind of work a call is for libvirtd; every call belongs to one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallClass {
    /// Opening a connection, its handshake included.
    Connect,
    /// Lookup, state, lists, documents: memory only.
    Query,
    /// Define and undefine: small files.
    Define,
    /// Start: a QEMU process and its devices.
    Start,
    /// Destroy: a process that may hang in the kernel.
    Destroy,
    /// What QEMU itself has to do or answer, such as to suspend and resume.
    Monitor,
    /// Networks: bridges, firewall rules, dnsmasq.
    Network,
    /// A command to the guest's agent.
    Agent,
    /// Freezing and thawing: the guest must write out what it holds.
    Freeze,
    /// Begin and end of a backup, checkpoints: bitmaps are written.
    Backup,
}

/// When to warn and when to cut, for one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallDeadline {
    /// Longer than this is worth a warning.
    pub warn_after: Duration,
    /// After this the connection is cut.
    pub cut_after: Duration,
}

/// The limits of all classes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Deadlines {
    scale: f64,
}

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines { scale: 1.0 }
    }
}

impl Deadlines {
    /// All limits multiplied: above 1 for hosts that emulate everything, below 1 for tests.
    pub fn scaled(scale: f64) -> Self {
        Deadlines { scale }
    }

    /// The limits of one class. libvirtd, when healthy, answers a query in half a millisecond, and waits itself up to
    /// 30 s for another job on the same domain: what changes a domain must outlast that.
    pub fn of(&self, class: CallClass) -> CallDeadline {
        let (soft, hard) = match class {
            CallClass::Connect => (1.0, 5.0),
            CallClass::Query => (0.5, 5.0),
            CallClass::Define => (1.0, 35.0),
            CallClass::Start => (5.0, 60.0),
            CallClass::Destroy => (10.0, 40.0),
            CallClass::Monitor => (1.0, 35.0),
            CallClass::Network => (5.0, 30.0),
            CallClass::Agent => (2.0, 12.0),
            CallClass::Freeze => (5.0, 35.0),
            CallClass::Backup => (5.0, 60.0),
        };
        CallDeadline {
            warn_after: Duration::from_secs_f64(soft * self.scale),
            cut_after: Duration::from_secs_f64(hard * self.scale),
        }
    }
}
