//! The handlers of the proxy's requests.

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use actor::ask;
use bus::{Call, Declined};
use contract::message::{Failure, NoRefusal};
use contract::proxy::{ListRoutes, Routes};

use crate::actors::{GetRoutes, RouteKeeper};

/// The keeper replies from memory.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// What the handlers share.
pub(crate) struct Handlers {
    pub(crate) keeper: Addr<RouteKeeper>,
}

pub(crate) async fn list_routes(
    handlers: Arc<Handlers>,
    _: Call<ListRoutes>,
) -> Result<Routes, Declined<NoRefusal>> {
    let routes = ask(&handlers.keeper, GetRoutes, REPLY_TIMEOUT).await;
    routes.map_err(|error| Failure::unavailable(&error).into())
}
