//! Which handler answers which request.

use chassis::Wiring;

use crate::handlers::{Handlers, add_schedule, list_runs, list_schedules, remove_schedule};

pub(crate) fn wiring() -> Wiring<Handlers> {
    Wiring::default().answer(add_schedule).answer(remove_schedule).answer(list_schedules).answer(list_runs)
}
