//! The promises of the HTTP front, over real loopback sockets.
//!
//! Every test has its own front and its own machines; it waits for conditions and shortens the timeouts that it is
//! about. `world` has the parts, the other files one subject each.

mod ending;
mod limits;
mod observing;
mod retries;
mod routing;
mod smuggling;
mod streaming;
mod upgrades;
mod world;
