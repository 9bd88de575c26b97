//! A person's connection to the bus, and how he asks.

use std::fmt::{Debug, Display};
use std::sync::Arc;
use std::time::Duration;

use bus::nats::{Connection, connect};
use bus::{Bus, CallError, Destination};
use contract::Request;
use contract::permissions::inbox_prefix_of_person;

use super::client::Whereabouts;
use super::exit::{Exit, Trouble};

/// The bus is on this host or near: what does not answer by then is not there.
const BUS_PATIENCE: Duration = Duration::from_secs(5);
/// One question. Some are answered only after a guest's file systems were looked at.
const QUESTION_MAX: Duration = Duration::from_secs(30);

/// A person at work.
pub(super) struct Session {
    /// The bus.
    pub bus: Bus,
    /// Whether answers are for programs.
    pub json: bool,
}

impl Session {
    /// Connects with the key of a person.
    pub(super) async fn open(whereabouts: Whereabouts<'_>, json: bool) -> Result<Session, Trouble> {
        let file = whereabouts.look_up()?;
        let connection = Connection {
            url: file.url,
            nkey_file: Some(file.key),
            name: format!("loam-{}", file.person),
            inbox_prefix: inbox_prefix_of_person(&file.person),
        };
        let carrier = connect(&connection, BUS_PATIENCE)
            .await
            .map_err(|error| Trouble::new(Exit::Unreachable, error.to_string()))?;
        Ok(Session { bus: Bus::new(Arc::new(carrier), file.realm), json })
    }

    /// Asks the owner of a request.
    pub(super) async fn ask<R: Request>(&self, request: R) -> Result<R::Reply, Trouble> {
        self.bus.call(&request, QUESTION_MAX).await.map_err(of_call)
    }

    /// Asks a service by name.
    pub(super) async fn ask_at<R: Request>(
        &self,
        place: impl Into<Place>,
        request: R,
    ) -> Result<R::Reply, Trouble> {
        self.bus.call_at(place, &request, QUESTION_MAX).await.map_err(of_call)
    }
}

/// What a call that brought no reply means for the command.
pub(super) fn of_call<F: Debug + Display>(error: CallError<F>) -> Trouble {
    let exit = match &error {
        CallError::Refused(_) => Exit::Refused,
        CallError::Transport { .. } => Exit::Unreachable,
        CallError::Failed(_) | CallError::Unreadable { .. } => Exit::Failed,
    };
    Trouble::new(exit, error.to_string())
}
