//! Which handler answers which request, and which check comes before a durable command.

use chassis::Wiring;

use crate::handlers::{Handlers, check_apply_release, check_roll_back_service, list_services};
use crate::state::UpgradeContext;

pub(crate) fn wiring() -> Wiring<Handlers, UpgradeContext> {
    Wiring::default().answer(list_services).begin(check_apply_release).begin(check_roll_back_service)
}
