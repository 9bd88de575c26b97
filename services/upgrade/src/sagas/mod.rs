//! The sagas of the upgrade service, one a file.

mod apply_release;
mod roll_back_service;
mod steps;

pub use apply_release::UpgradedService;
pub use roll_back_service::RolledBackService;
