//! Settings of the upgrade service.
//!
//! ```toml
//! [upgrade]
//! ready_seconds = 60     # how long a new build may take to become healthy
//! soak_seconds = 5       # how long it must then stay healthy
//! ```

use std::time::Duration;

use serde::Deserialize;

/// The part `[upgrade]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    ready_seconds: u32,
    soak_seconds: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config { ready_seconds: 60, soak_seconds: 5 }
    }
}

impl Config {
    /// With other times, in seconds.
    pub fn of(ready_seconds: u32, soak_seconds: u32) -> Config {
        Config { ready_seconds, soak_seconds }
    }

    /// How long a new build may take to become healthy.
    pub fn ready_within(&self) -> Duration {
        Duration::from_secs(self.ready_seconds.into())
    }

    /// How long it must then stay healthy.
    pub fn soak(&self) -> Duration {
        Duration::from_secs(self.soak_seconds.into())
    }
}
