//! Waiting for an operation of another service.

use std::time::Duration;

use bus::{Bus, CallError, TransportError};
use contract::message::with_causes;
use contract::operation::{GetOperation, OperationReport, UnknownOperation};
use contract::{OperationId, Request, Service};
use tokio::time::Instant;

/// One request.
const CALL_MAX: Duration = Duration::from_secs(5);
/// Between two requests.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Polls a service for an operation until it has ended, for at most `timeout`; the answer to a durable command is only
/// its id. `seen` is shown every report before the last. Transient errors on the way are waited out.
///
/// # Errors
/// When the service knows no such operation, or it has not ended in time.
pub async fn wait_for_operation(
    bus: &Bus,
    service: Service,
    id: &OperationId,
    timeout: Duration,
    mut seen: impl FnMut(&OperationReport),
) -> Result<OperationReport, CallError<UnknownOperation>> {
    let until = Instant::now() + timeout;
    loop {
        match bus.call_at(service, &GetOperation { id: id.clone() }, CALL_MAX).await {
            Ok(report) if report.state.is_final() => return Ok(report),
            Ok(report) => seen(&report),
            Err(error) if error.is_transient() => {
                tracing::debug!(error = with_causes(&error), "asking for the operation again")
            }
            Err(error) => return Err(error),
        }
        if Instant::now() >= until {
            let source = TransportError::TimedOut { subject: format!("operation {id}"), after: timeout };
            return Err(CallError::Transport { service, request: GetOperation::NAME, source });
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
