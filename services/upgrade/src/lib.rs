//! The upgrade service replaces the services themselves: one at a time, by a signed build, and rolls back to the build
//! before when the new one is not healthy.
//!
//! ```text
//!   apply_release --> admission: copy the release, verify the copy      refused: nothing was touched
//!                         |
//!                         +--begin--> saga: stage -> inspect -> replace -> await_healthy -> commit
//!                                                                 |            |
//!                                              supervisor: stop the old,       +-- not healthy: roll back
//!                                              start the new
//!   roll_back_service --> saga: inspect -> replace -> await_healthy       the build before, which the supervisor kept
//!   list_services --> discovery: which services answer, and the health of each
//! ```
//!
//! Promises:
//!
//! - an executable runs only if a key in `{state}/keys/release` signed its digest; the copy in our own folder is what is
//!   checked, so that nobody can change it between the check and its use;
//! - a build that is not ready in time, dies or reports a problem during its soak is replaced by the one before;
//! - whatever step the process dies at, the upgrade is finished or rolled back after its next start;
//! - no version below the highest that was ever committed here is applied without a reason, which is kept;
//! - one upgrade at a time.
//!
//! It does not know how processes are started: the supervisor does that. It cannot replace the supervisor, nor itself.
//! Next: `upgrade-domain` for what is trusted and what counts as healthy, `sagas` for the steps.

mod admission;
pub mod config;
mod discovery;
mod handlers;
mod metrics;
pub mod release_dir;
pub mod sagas;
mod state;
mod wiring;

use std::sync::Arc;

use bus::Bus;
use chassis::Settings;
use contract::Service;

pub use crate::state::UpgradeContext;

use crate::admission::ReleaseAdmission;
use crate::config::Config;
use crate::handlers::Handlers;
use crate::release_dir::ReleaseDir;

/// Opens the service: what it answers, and its operations.
pub fn open(bus: Bus, settings: Settings<Config>) -> chassis::Service {
    let state = Arc::new(UpgradeContext {
        bus: bus.clone(),
        host: settings.host.clone(),
        releases: ReleaseDir::in_state(&settings.state_dir),
        ready_within: settings.service.ready_within(),
        soak: settings.service.soak(),
    });
    let (engine, wiring) = wiring::wiring().open_engine(&bus, Service::Upgrade, &settings.host, &state);
    let admission = ReleaseAdmission::new(state, engine);
    chassis::Service::new(wiring, Handlers { bus, admission })
}
