//! Settings of the scheduler: none so far; a key in `[scheduler]` is refused by name.

use serde::Deserialize;

/// The part `[scheduler]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {}
