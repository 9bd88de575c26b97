//! Which handler answers which request, and which saga a command begins.

use chassis::Wiring;
use operation::Engine;

use crate::handlers::{Handlers, check_apply_release, list_services};
use crate::sagas;

pub(crate) fn wiring(handlers: Handlers, engine: &Engine) -> Wiring<Handlers> {
    Wiring::new(handlers).answer(list_services).begin(engine, sagas::ApplyRelease, check_apply_release)
}
