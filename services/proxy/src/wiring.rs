//! Which handler answers which request.

use chassis::Wiring;

use crate::handlers::{Handlers, list_routes};

pub(crate) fn wiring(handlers: Handlers) -> Wiring<Handlers> {
    Wiring::new(handlers).answer(list_routes)
}
