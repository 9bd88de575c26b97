//! The suites of the ports on the simulated adapters.

use contract::{ByteCount, OperationId, Realm};
use provisioner::adapters::simulated::SimulatedShell;
use provisioner::ports::{Disk, Guest, Hypervisor, Image, ImageFormat, VmMark, VmSpec};

use crate::support::{Simulated, WAIT_MAX, raw_image, suites};

fn spec(folder: &std::path::Path) -> VmSpec {
    VmSpec {
        name: "loam-web".into(),
        uuid: "00000000-0000-4000-8000-000000000003".parse().expect("a UUID"),
        mac: "52:54:00:00:00:03".parse().expect("a MAC address"),
        cpu_count: 1,
        ram_size: ByteCount::mib(256),
        disks: vec![Disk {
            name: "vda".parse().expect("a name"),
            image: Image { path: raw_image(folder).0, format: ImageFormat::Raw },
            base: None,
        }],
        nocloud_volume: folder.join("nocloud.img"),
        console_log: folder.join("console.log"),
        simulated_ports: vec![8080],
        mark: VmMark {
            realm: Realm::default(),
            vm: "web".parse().expect("a name"),
            cloud_init_generation: 1,
            operation: OperationId::from_bits(1),
        },
    }
}

#[actix::test]
async fn the_simulated_hypervisor_passes_the_suite_of_its_port() {
    let folder = tempfile::tempdir().expect("a folder");
    let simulated = Simulated::open(&folder.path().join("state")).await;
    let exports =
        simulated.ports.disks.create_export_folder(&OperationId::from_bits(1)).await.expect("a folder");
    let spec = spec(folder.path());
    suites::hypervisor(simulated.hypervisor.as_ref(), &spec, &exports, WAIT_MAX).await;
    let replace = async || {
        let other = folder.path().join("other.qcow2");
        simulated.hypervisor.replace_disk(&spec.uuid, &other).expect("replaced");
    };
    suites::changed_disk(simulated.hypervisor.as_ref(), &spec, replace).await;
}

#[actix::test]
async fn the_simulated_shell_passes_the_suite_of_its_port() {
    let folder = tempfile::tempdir().expect("a folder");
    let simulated = Simulated::open(&folder.path().join("state")).await;
    let spec = spec(folder.path());
    let hypervisor = &simulated.hypervisor;
    hypervisor.define(&spec).await.expect("defined");
    hypervisor.start(&spec.uuid).await.expect("started");
    let address = hypervisor.address(&spec.uuid, &spec.mac).await;
    let guest = Guest {
        address: address.expect("an answer").expect("it runs"),
        uuid: spec.uuid.clone(),
        host_key: None,
    };
    suites::guest_shell(&SimulatedShell::new(hypervisor.clone()), &guest).await;
}
