//! `loam-backup`: the backup service, reading disks through NBD.

use std::sync::Arc;

use backup::adapters::nbd::NbdExports;
use backup::config::{Config, repository_config};
use contract::Service;
use contract::provisioner::DESCRIPTOR_SOCKET;

fn main() -> anyhow::Result<()> {
    chassis::run::<Config, _, _>(Service::Backup, env!("CARGO_PKG_VERSION"), "", |chassis| async move {
        let repository = repository_config(&chassis.settings)?;
        let exports = NbdExports::at(chassis.settings.state_dir.join(DESCRIPTOR_SOCKET));
        Ok(backup::open(chassis.bus, chassis.settings.host, repository, Arc::new(exports)))
    })
}
