//! Messages of the proxy.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::message::{MessageOwner, NeverRefused, messages};
use crate::{DomainName, Service, VmName};

messages! { MessageOwner::One(Service::Proxy) =>
    request ListRoutes { "list_routes", from [People], reply Routes, refusal NeverRefused }
}

/// Lists the routes: where requests to each domain go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListRoutes {}

/// The proxy's routing table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Routes {
    /// Where it listens for HTTP (`0.0.0.0:8080`).
    pub http_listener: String,
    /// One route for each domain.
    pub routes: Vec<RouteRow>,
}

/// Where requests to one domain go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RouteRow {
    /// The domain.
    pub domain: DomainName,
    /// The VM behind it.
    pub vm: VmName,
    /// What a request gets now.
    pub target: RouteTarget,
}

/// What a request to a domain gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RouteTarget {
    /// It is forwarded to this address and port.
    Address(String),
    /// It gets 503 with Retry-After, for this reason.
    Unavailable(String),
    /// A target of a later version, as it was sent.
    #[serde(untagged)]
    Unknown(serde_json::Value),
}
