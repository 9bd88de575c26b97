//! The sagas of the upgrade service, one a file.

mod apply_release;

pub use apply_release::UpgradedService;
