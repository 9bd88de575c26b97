//! The provisioner as a process. Which adapters are behind its ports is a setting: `provisioner.hypervisor`.

use chassis::ServiceContext;
use contract::Service;
use provisioner::config::HypervisorKind;
use provisioner::{Config, adapters};

fn main() -> anyhow::Result<()> {
    chassis::run(Service::Provisioner, env!("CARGO_PKG_VERSION"), provisioner::DEFAULTS, open)
}

async fn open(chassis: ServiceContext<Config>) -> anyhow::Result<chassis::Service> {
    let (config, state_dir) = (&chassis.settings.service, &chassis.settings.state_dir);
    config.check().map_err(anyhow::Error::msg)?;
    let ports = match config.hypervisor {
        HypervisorKind::Libvirt => adapters::real(config, state_dir).await?,
        HypervisorKind::Simulated => adapters::simulated(config, state_dir).await?,
    };
    provisioner::open(chassis, ports).await
}
