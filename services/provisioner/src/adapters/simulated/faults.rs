//! Faults of the simulation, on request of a test.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;

use super::hypervisor::SimulatedCall;
use crate::ports::{HypervisorError, HypervisorErrorKind};

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call fails so many times.
    Fail(u32, HypervisorErrorKind),
    /// The call does not return until the fault is cleared.
    Stall,
    /// The call returns, and the guest does nothing: no address, no answer, no shutdown, no login; a resumed VM is
    /// paused again.
    GuestUnresponsive,
}

/// The faults that are switched on.
#[derive(Debug, Default)]
pub struct Faults {
    on: Mutex<HashMap<SimulatedCall, Fault>>,
    cleared: Notify,
}

impl Faults {
    /// Switches a fault on, in place of one that was.
    pub fn set(&self, call: SimulatedCall, fault: Fault) {
        self.on().insert(call, fault);
    }

    /// Switches a fault off; what stalled goes on.
    pub fn clear(&self, call: SimulatedCall) {
        self.on().remove(&call);
        self.cleared.notify_waiters();
    }

    pub(super) fn has_no_effect(&self, call: SimulatedCall) -> bool {
        self.on().get(&call) == Some(&Fault::GuestUnresponsive)
    }

    /// Fails or stalls where the call has a fault.
    pub(super) async fn check(&self, call: SimulatedCall) -> Result<(), HypervisorError> {
        loop {
            let cleared = self.cleared.notified();
            tokio::pin!(cleared);
            // From here on no clearing is missed.
            cleared.as_mut().enable();
            {
                let mut on = self.on();
                match on.get_mut(&call) {
                    None | Some(Fault::GuestUnresponsive) => return Ok(()),
                    Some(Fault::Fail(times, kind)) => {
                        let error =
                            HypervisorError::new(*kind, format!("{call:?}"), "a fault of the simulation");
                        *times -= 1;
                        if *times == 0 {
                            on.remove(&call);
                        }
                        return Err(error);
                    }
                    Some(Fault::Stall) => {}
                }
            }
            cleared.await;
        }
    }

    fn on(&self) -> MutexGuard<'_, HashMap<SimulatedCall, Fault>> {
        self.on.lock().expect("no code here panics while it holds the lock")
    }
}
