//! What goes wrong in a simulation, on request.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::ports::HypervisorError;

/// What can be asked of the simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the port's method of that name")]
pub enum Call {
    Prepare,
    Check,
    Define,
    Start,
    RequestShutdown,
    Destroy,
    Undefine,
    Power,
    Address,
    AgentAnswers,
    Freeze,
    Thaw,
    OpenExports,
    CloseExports,
    MarkedVm,
    Shell,
}

/// How it goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call fails so many times with this error.
    Fail(u32, HypervisorError),
    /// The call does not come back until the fault is mended.
    Stall,
    /// The call comes back, and the guest behind it does nothing: no address, no answer, no stop, no entry.
    Deaf,
}

/// The faults that are switched on.
#[derive(Debug, Default)]
pub struct Faults {
    on: Mutex<HashMap<Call, Fault>>,
    mended: Notify,
}

impl Faults {
    /// Switches a fault on, in place of one that was.
    pub fn set(&self, call: Call, fault: Fault) {
        self.on().insert(call, fault);
    }

    /// Switches a fault off; what stalled goes on.
    pub fn mend(&self, call: Call) {
        self.on().remove(&call);
        self.mended.notify_waiters();
    }

    pub(super) fn is_deaf(&self, call: Call) -> bool {
        self.on().get(&call) == Some(&Fault::Deaf)
    }

    /// Meets the fault of a call, if one is on.
    pub(super) async fn meet(&self, call: Call) -> Result<(), HypervisorError> {
        loop {
            let mended = self.mended.notified();
            tokio::pin!(mended);
            // From here on no mending is missed.
            mended.as_mut().enable();
            {
                let mut on = self.on();
                match on.get_mut(&call) {
                    None | Some(Fault::Deaf) => return Ok(()),
                    Some(Fault::Fail(times, error)) => {
                        let error = error.clone();
                        *times -= 1;
                        if *times == 0 {
                            on.remove(&call);
                        }
                        return Err(error);
                    }
                    Some(Fault::Stall) => {}
                }
            }
            mended.await;
        }
    }

    fn on(&self) -> MutexGuard<'_, HashMap<Call, Fault>> {
        self.on.lock().expect("no code here panics while it holds the lock")
    }
}
