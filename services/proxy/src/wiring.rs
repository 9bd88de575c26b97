//! Which handler answers which request.

use chassis::Wiring;

use crate::handlers::{Handlers, list_routes};

pub(crate) fn wiring() -> Wiring<Handlers> {
    Wiring::default().answer(list_routes)
}
