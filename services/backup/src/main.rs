//! `loam-backup`: the backup service, reading disks through NBD.

use std::sync::Arc;

use backup::adapters::nbd::NbdExports;
use backup::config::{Config, repository_config};
use contract::Service;

fn main() -> anyhow::Result<()> {
    chassis::run::<Config, _, _>(Service::Backup, env!("CARGO_PKG_VERSION"), "", |chassis| async move {
        let repository = repository_config(&chassis.settings)?;
        Ok(backup::open(chassis.bus, chassis.settings.host, repository, Arc::new(NbdExports)))
    })
}
