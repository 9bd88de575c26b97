//! The handlers of the proxy's requests.

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use actor::ask;
use bus::{ErrorReply, IncomingRequest};
use contract::message::{Failure, NeverRefused};
use contract::proxy::{ListRoutes, Routes};

use crate::actors::{GetRoutes, RouteKeeper};

/// The keeper replies from memory.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// What the handlers share.
pub(crate) struct Handlers {
    pub(crate) route_keeper: Addr<RouteKeeper>,
}

pub(crate) async fn list_routes(
    handlers: Arc<Handlers>,
    _: IncomingRequest<ListRoutes>,
) -> Result<Routes, ErrorReply<NeverRefused>> {
    let routes = ask(&handlers.route_keeper, GetRoutes, REPLY_TIMEOUT).await;
    routes.map_err(|error| Failure::unavailable(&error).into())
}
