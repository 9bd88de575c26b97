//! Words of the proxy.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::word::{Nothing, Owner, Request};
use crate::{DomainName, Service, VmName};

/// Asks where each domain leads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListRoutes {}

impl Request for ListRoutes {
    const OWNER: Owner = Owner::One(Service::Proxy);
    const NAME: &'static str = "list_routes";
    type Reply = Routes;
    type Refusal = Nothing;
}

/// The proxy's table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Routes {
    /// Where it listens for HTTP (`0.0.0.0:8080`).
    pub http_listener: String,
    /// One row a domain.
    pub routes: Vec<RouteRow>,
}

/// Where one domain leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RouteRow {
    /// The domain.
    pub domain: DomainName,
    /// The machine behind it.
    pub vm: VmName,
    /// What a request gets now.
    pub target: RouteTarget,
}

/// What a request to a domain gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RouteTarget {
    /// It is led to this address and port.
    Address(String),
    /// It gets 503 with Retry-After, for this reason.
    Unavailable(String),
}
