//! `loam-backup`: the backup service with real doors.

use std::sync::Arc;

use backup::adapters::nbd::NbdDoors;

fn main() -> anyhow::Result<()> {
    backup::run(Arc::new(NbdDoors))
}
