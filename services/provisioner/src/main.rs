//! The provisioner as a process. Which adapters stand behind its ports is a setting: `provisioner.hypervisor`.

fn main() -> anyhow::Result<()> {
    provisioner::run()
}
