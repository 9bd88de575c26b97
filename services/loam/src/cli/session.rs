//! A person's connection to the bus, and requests over it.

use std::fmt::{Debug, Display};
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use bus::nats::{ConnectError, Connection, connect};
use bus::{Bus, CallError, Destination};
use contract::Request;
use contract::message::with_causes;
use contract::permissions::User;

use super::client::{AS_ROOT, BusAddress};
use super::exit::{CliError, CliExitCode};

/// The bus is on this host or near: one that does not answer by then is away.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// One request. Some are answered only after a guest's file systems were frozen.
const REQUEST_MAX: Duration = Duration::from_secs(30);

/// A connection with the key of a person.
pub(super) struct Session {
    /// The bus.
    pub bus: Bus,
    /// Whether results are for programs.
    pub json: bool,
}

impl Session {
    /// Connects with the key of a person.
    pub(super) async fn open(address: BusAddress<'_>, json: bool) -> Result<Session, CliError> {
        let file = address.read()?;
        let connection = Connection {
            url: file.url,
            nkey_file: Some(file.key),
            ca_file: file.ca_file,
            name: format!("loam-{}", file.person),
            user: User::Person(file.person),
        };
        let carrier = connect(&connection, CONNECT_MAX).await.map_err(|error| not_connected(&error))?;
        Ok(Session { bus: Bus::new(Arc::new(carrier), file.realm), json })
    }

    /// Sends a request to the service that owns it.
    pub(super) async fn request<R: Request>(&self, request: R) -> Result<R::Reply, CliError> {
        self.bus.call(&request, REQUEST_MAX).await.map_err(of_call)
    }

    /// Sends a request to one service.
    pub(super) async fn request_at<R: Request>(
        &self,
        place: impl Into<Destination>,
        request: R,
    ) -> Result<R::Reply, CliError> {
        self.bus.call_at(place, &request, REQUEST_MAX).await.map_err(of_call)
    }
}

fn not_connected(error: &ConnectError) -> CliError {
    match error {
        ConnectError::Key { path, source } if source.kind() == ErrorKind::PermissionDenied => {
            CliError::new(CliExitCode::Unreachable, format!("reading the key {path}: {source}; {AS_ROOT}"))
        }
        ConnectError::Key { path, source } => {
            CliError::new(CliExitCode::Usage, format!("reading the key {path}: {source}"))
        }
        _ => CliError::new(CliExitCode::Unreachable, with_causes(error)),
    }
}

/// What a call that brought no reply means for the command.
pub(super) fn of_call<F: Debug + Display>(error: CallError<F>) -> CliError {
    let exit = match &error {
        CallError::Refused(_) | CallError::RefusedByLaterVersion { .. } => CliExitCode::Refused,
        CallError::Transport { .. } => CliExitCode::Unreachable,
        CallError::Failed(_) | CallError::UnreadableReply { .. } => CliExitCode::Failed,
    };
    CliError::new(exit, with_causes(&error))
}
