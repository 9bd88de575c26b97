//! Whether a new VM fits on its host. Memory and disks that are promised twice work until they are used: then guests are
//! killed or paused. So a person has to say that it is meant (`--overcommit`).

use contract::ByteCount;
use contract::provisioner::{CreateVmRefused, VmDefinition};

/// Virtual processors of one VM for each processor of its host. With more, a guest waits for itself.
pub const VCPUS_PER_CPU_MAX: u32 = 4;

/// What a host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostCapacity {
    /// Its processors.
    pub cpus: u32,
    /// Its memory, in bytes.
    pub memory: ByteCount,
}

impl HostCapacity {
    /// Whether a VM fits, beside VMs that run or should run with `promised` memory, and with so much disk space free.
    ///
    /// # Errors
    /// [`CreateVmRefused::ExceedsHost`] with what is asked for and what there is.
    pub fn check(
        &self,
        definition: &VmDefinition,
        promised: ByteCount,
        free: ByteCount,
    ) -> Result<(), CreateVmRefused> {
        let refuse =
            |field: &str, reason: String| Err(CreateVmRefused::ExceedsHost { field: field.into(), reason });
        let (ram, disk, vcpus) = (definition.ram_size, definition.disk_size, definition.cpu_count);
        if ram.0.saturating_add(promised.0) > self.memory.0 {
            let memory = self.memory;
            return refuse(
                "ram_size",
                format!("{ram} asked for, the host has {memory}, other VMs use {promised}"),
            );
        }
        let most = self.cpus.saturating_mul(VCPUS_PER_CPU_MAX);
        if vcpus > most {
            let cpus = self.cpus;
            return refuse(
                "cpu_count",
                format!(
                    "{vcpus} asked for, the host has {cpus} processors: at most {most} ({VCPUS_PER_CPU_MAX} for each)"
                ),
            );
        }
        if disk > free {
            return refuse("disk_size", format!("{disk} asked for, only {free} are free for disks"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::tests::definition;

    #[test]
    fn a_vm_that_does_not_fit_is_refused_with_the_numbers() {
        let host = HostCapacity { cpus: 2, memory: ByteCount::gib(24) };
        let check = |change: &dyn Fn(&mut VmDefinition)| {
            let mut wanted = definition("web");
            change(&mut wanted);
            host.check(&wanted, ByteCount::gib(4), ByteCount::gib(10)).map_err(|refused| refused.to_string())
        };
        assert_eq!(check(&|_| ()), Ok(()));
        assert_eq!(check(&|vm| vm.ram_size = ByteCount::gib(20)), Ok(()));
        assert_eq!(check(&|vm| vm.cpu_count = 8), Ok(()));
        assert_eq!(check(&|vm| vm.disk_size = ByteCount::gib(10)), Ok(()));
        for (change, parts) in [
            (
                &(|vm: &mut VmDefinition| vm.ram_size = ByteCount::gib(21)) as &dyn Fn(&mut VmDefinition),
                ["21 GiB", "24 GiB", "4 GiB"],
            ),
            (&|vm: &mut VmDefinition| vm.cpu_count = 64, ["64", "2 processors", "at most 8"]),
            (
                &|vm: &mut VmDefinition| vm.disk_size = ByteCount::gib(11),
                ["11 GiB", "10 GiB", "--overcommit"],
            ),
        ] {
            let refused = check(change).expect_err("it does not fit");
            assert!(parts.iter().all(|part| refused.contains(part)), "{refused}");
        }
    }
}
