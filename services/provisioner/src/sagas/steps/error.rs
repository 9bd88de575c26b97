//! Errors of ports as errors of steps: here it is decided, from the typed error, what is tried again.

use contract::message::with_causes;
use saga::StepError;

use crate::ports::{DiskError, HypervisorError, ShellError};

fn step_error(error: &dyn std::error::Error, is_transient: bool) -> StepError {
    if is_transient {
        StepError::Transient(with_causes(error))
    } else {
        StepError::Permanent(with_causes(error))
    }
}

/// A hypervisor that is away is waited for; what it refuses stays refused.
pub(in crate::sagas) fn hypervisor_error(error: HypervisorError) -> StepError {
    let is_transient = error.is_transient();
    step_error(&error, is_transient)
}

/// Files and downloads may succeed later; an image that is unfit stays so.
pub(in crate::sagas) fn disk_error(error: DiskError) -> StepError {
    let is_transient = error.is_transient();
    step_error(&error, is_transient)
}

/// A guest that is not reached may be booting; a script that failed has failed.
pub(in crate::sagas) fn shell_error(error: ShellError) -> StepError {
    let is_transient = matches!(error, ShellError::Unreachable(_));
    step_error(&error, is_transient)
}
