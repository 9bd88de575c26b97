//! The promises of the HTTP frontend, over real loopback sockets.
//!
//! Every test has its own frontend and its own upstreams; it waits for conditions and shortens the timeouts that it is
//! about. `support` has the parts, the other files one subject each.

mod ending;
mod limits;
mod observing;
mod retries;
mod routing;
mod smuggling;
mod streaming;
mod support;
mod upgrades;
