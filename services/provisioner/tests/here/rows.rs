//! What is stored stays readable: one row of each type, as version 1 writes it.

use bus::{read_row, write_row};
use contract::provisioner::{Consistency, DiskExport, OpenedDisks, Seed, UnclaimedVm};
use contract::{ByteCount, NoPrevious, OperationId, Stored, Timestamp};
use encryption::{RowKeys, new_key};
use provisioner_domain::secrets::row_of;
use provisioner_domain::{
    ExportPhase, ExportRecord, ExportServer, HostRecord, Inventory, NameRecord, NewVmParams, SeedImageRecord,
    StoredSecrets,
};

use crate::support::{definition, seed_name, vm};

fn holds<T: Stored<Previous = NoPrevious> + PartialEq + std::fmt::Debug>(name: &str, value: &T) {
    let row = write_row(value).expect("written");
    testkit::golden_row(env!("CARGO_MANIFEST_DIR"), name, &row);
    assert_eq!(read_row::<T>(&row).as_ref(), Ok(value));
}

#[test]
fn rows_of_version_1_are_read_and_written() {
    let by = OperationId::from_bits(7);
    let seed = Seed {
        name: seed_name(),
        host: "h1".parse().expect("valid"),
        sha256: "a".repeat(64),
        virtual_size: ByteCount::mib(16),
        stored_size: ByteCount::mib(1),
        added: Timestamp::UNIX_EPOCH,
    };
    let seed = SeedImageRecord::Imported { seed, by: by.clone() };
    holds("seeds", &seed);

    let host: contract::HostName = "h1".parse().expect("valid");
    let reported = HostRecord {
        name: host.clone(),
        reported: Timestamp::UNIX_EPOCH,
        cpus: Some(2),
        memory: Some(ByteCount::gib(4)),
        promised_memory: ByteCount::mib(256),
        free_disk: Some(ByteCount::gib(10)),
        vms: 1,
        unclaimed: vec![UnclaimedVm {
            name: vm("old"),
            uuid: "00000000-0000-4000-8000-000000000005".parse().expect("valid"),
        }],
        hypervisor: "libvirt".into(),
        emulation_reason: Some("this host has no /dev/kvm".into()),
        version: "1.0.0".into(),
        removed: Some(Timestamp::UNIX_EPOCH),
    };
    holds("hosts", &reported);
    let mut new_vm = NewVmParams {
        by: by.clone(),
        random_bits: 1,
        host: host.clone(),
        now: Timestamp::UNIX_EPOCH,
        secrets: None,
    };
    let keys = RowKeys::parse(&new_key([1; 32])).expect("a key");
    let encrypted = keys.encrypt(row_of(&new_vm.identity().uuid), [7; 32], b"secrets").expect("encrypted");
    let (variables, scripts) = (vec!["PASSWORD".into()], vec!["install.sh".into()]);
    new_vm.secrets = Some(StoredSecrets { variables, scripts, encrypted });
    let record = Inventory::new([], [seed]).create(&definition("web"), &new_vm).expect("it may be created");
    holds("vms", &record);
    let name = NameRecord {
        host: host.clone(),
        uuid: record.identity.uuid.clone(),
        by: by.clone(),
        reserved_until: Some(Timestamp::UNIX_EPOCH),
    };
    holds("vm_names", &name);

    let export = DiskExport {
        disk: "vda".parse().expect("valid"),
        socket: "/run/vda.sock".into(),
        export_name: "vda".into(),
        size: ByteCount::mib(64),
    };
    let opened = OpenedDisks {
        host,
        exports: vec![export],
        definition: definition("web"),
        opened_at: Timestamp::UNIX_EPOCH,
        consistency: Consistency::Crash,
        lease_seconds: 120,
    };
    let mut record = ExportRecord {
        operation: by,
        vm: vm("web"),
        uuid: record.identity.uuid,
        served_by: ExportServer::Hypervisor,
        phase: ExportPhase::Open(Box::new(opened.clone())),
    };
    holds("disk_exports", &record);
    let unknown = OpenedDisks { consistency: Consistency::Unknown, ..opened };
    record.phase = ExportPhase::Open(Box::new(unknown));
    assert!(write_row(&record).is_err(), "a case that is not known is never stored");
}
