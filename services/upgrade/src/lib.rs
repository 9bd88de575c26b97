//! The upgrade service renews the services themselves: one at a time, by a signed build, and back if it will not do.
//!
//! ```text
//!   apply_release --> Gatekeeper --> shelf: copy the release, verify the copy      refused: nothing was touched
//!                         |
//!                         +--begin--> saga: stage -> note -> replace -> prove
//!                                                              |          |
//!                                            supervisor: end the old,     +-- not well: the old one is put back
//!                                            start the new
//!   list_services --> survey: who answers to discovery, and how each is
//! ```
//!
//! Promises:
//!
//! - an executable runs only if a key in `{state}/keys/release` signed its digest; what is checked is our own copy,
//!   so that nobody can change it between the check and its use;
//! - a build that is not ready in time, dies or answers ill during its soak is replaced by the one before;
//! - whatever step the process dies at, the upgrade goes on or back after its next start;
//! - one upgrade at a time.
//!
//! It does not know how processes are started, that is the supervisor's trade; it cannot replace the supervisor, nor
//! itself. Next: `upgrade-domain` for what is trusted and what counts as proven, `sagas` for the steps.

mod actors;
pub mod config;
mod metrics;
pub mod sagas;
pub mod shelf;
mod survey;
mod wiring;

use std::sync::Arc;

use bus::Bus;
use chassis::Settings;
use contract::Service;
use operation::Operations;

use crate::actors::Gatekeeper;
use crate::config::Config;
use crate::sagas::{ApplyRelease, World};
use crate::shelf::Shelf;

/// Starts the actors and gives back what answers. Call it inside an actix system.
pub fn open(bus: Bus, settings: Settings<Config>) -> chassis::Service {
    let world = Arc::new(World {
        bus: bus.clone(),
        host: settings.host,
        shelf: Shelf::in_state(&settings.state_dir),
        ready_within: settings.own.ready_within(),
        soak: settings.own.soak(),
    });
    let operations =
        Operations::of(bus.clone(), Service::Upgrade).with::<ApplyRelease>(Arc::clone(&world)).open();
    let gatekeeper = Gatekeeper::start(world.shelf.clone(), operations.clone());
    chassis::Service {
        endpoints: Some(wiring::endpoints(bus, gatekeeper)),
        operations: Some(operations),
        ..chassis::Service::default()
    }
}
