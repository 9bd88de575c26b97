//! Errors of calls as errors of steps: what may succeed a little later is transient.

use std::fmt::{Debug, Display};

use bus::{CallError, ErrorReply};
use contract::message::{Failure, with_causes};
use saga::StepError;

/// A failure that a service reported.
pub fn failure_error(failure: Failure) -> StepError {
    if failure.is_transient() {
        StepError::Transient(failure.message)
    } else {
        StepError::Permanent(failure.message)
    }
}

/// A request to another service that brought no reply. A refusal is permanent.
pub fn call_error<F: Debug + Display + 'static>(error: CallError<F>) -> StepError {
    if error.is_transient() {
        StepError::Transient(with_causes(&error))
    } else {
        StepError::Permanent(with_causes(&error))
    }
}

/// What an actor of our own declined. A refusal is permanent.
pub fn declined_error<F: Display>(declined: ErrorReply<F>) -> StepError {
    match declined {
        ErrorReply::Refused(refusal) => StepError::Permanent(refusal.to_string()),
        ErrorReply::Failed(failure) => failure_error(failure),
    }
}
