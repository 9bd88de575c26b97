//! Several hosts with one repository: a backup is made where the VM's disks are, a restore where the VM is to be, and only one
//! host maintains the repository at a time.

use std::sync::Arc;

use backup::adapters::lease::LeaseRecord;
use bus::memory::MemoryTransport;
use bus::{Bus, CallError};
use contract::backup::{
    ApplyRetention, CollectRepository, ListBackups, RestoreBackupAsVm, RestoreBackupAsVmRefused,
    RetentionRules, StartBackup,
};
use contract::message::FailureKind;
use contract::operation::{GetOperation, OperationState};
use contract::provisioner::{HostRefused, HostState};
use contract::{OperationId, Realm, Service, bucket};
use testkit::eventually;

use crate::support::{
    DEADLINE, FakeProvisioner, RawExports, TestService, host, other_host, raw_image, repository_config, vm,
};

/// Requests of a queue group go to another instance each time.
const TIMES: usize = 4;

struct TwoHosts {
    bus: Bus,
    provisioner: FakeProvisioner,
    h1: TestService,
    h2: TestService,
    _folder: tempfile::TempDir,
}

/// VM `web` is on h1, `db` on h2.
async fn two_hosts() -> TwoHosts {
    let folder = tempfile::tempdir().expect("a folder");
    let bus = Bus::new(Arc::new(MemoryTransport::new()), Realm::default());
    let (provisioner, server) = FakeProvisioner::open(&bus, folder.path()).await;
    for (seed, name) in ["web", "db"].into_iter().enumerate() {
        let image = folder.path().join(name);
        raw_image(&image, seed as u64, 1 << 20);
        provisioner.add_raw_vm(&vm(name), &image);
    }
    {
        let mut state = provisioner.state();
        state.elsewhere.insert(vm("db"), other_host());
        state.hosts = [(host(), HostState::Ready), (other_host(), HostState::Ready)].into();
    }
    let open = async |at, servers| {
        let config = repository_config(folder.path());
        let (bus, fake) = (bus.clone(), provisioner.clone());
        let service =
            TestService::on_host(at, bus, fake, servers, folder.path(), config, Arc::new(RawExports)).await;
        service.ready().await;
        service
    };
    let h1 = open(host(), vec![server]).await;
    let h2 = open(other_host(), Vec::new()).await;
    for _ in 0..TIMES {
        h1.ready().await;
    }
    TwoHosts { h1, h2, bus, provisioner, _folder: folder }
}

impl TwoHosts {
    async fn back_up(&self, name: &str) -> contract::operation::OperationReport {
        let start = StartBackup { vm: vm(name), schedule: None, operation_id: None };
        let begun = self.bus.call(&start, DEADLINE).await.expect("begun");
        let report = self.h1.ended(&begun).await;
        assert_eq!(report.state, OperationState::Done, "{report:?}");
        report
    }
}

fn restore(as_vm: &str, at: Option<contract::HostName>) -> RestoreBackupAsVm {
    RestoreBackupAsVm {
        backup: "web@latest".parse().expect("a reference"),
        as_vm: vm(as_vm),
        host: at,
        overcommit: false,
        operation_id: None,
    }
}

#[actix::test]
async fn a_backup_is_made_on_the_host_of_its_vm_whichever_service_receives_the_command() {
    let hosts = two_hosts().await;
    for _ in 0..TIMES {
        assert_eq!(hosts.back_up("web").await.host, host());
        assert_eq!(hosts.back_up("db").await.host, other_host());
    }
    eventually("both list all backups", async || {
        let mut complete = true;
        for _ in 0..TIMES {
            let listed = hosts.bus.call(&ListBackups::default(), DEADLINE).await.expect("a list");
            complete &= listed.len() == 2 * TIMES;
        }
        complete
    })
    .await;

    hosts.provisioner.state().hosts.insert(other_host(), HostState::Unreachable);
    for _ in 0..TIMES {
        let start = StartBackup { vm: vm("db"), schedule: None, operation_id: None };
        match hosts.bus.call(&start, DEADLINE).await {
            Err(CallError::Failed(failure)) => {
                assert_eq!(failure.kind, FailureKind::Unavailable);
                assert!(failure.message.starts_with("host h2 is unreachable"), "{failure}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[actix::test]
async fn a_vm_is_restored_on_the_host_that_is_named() {
    let hosts = two_hosts().await;
    hosts.back_up("web").await;
    for time in 0..TIMES {
        for at in [host(), other_host()] {
            let command = restore(&format!("web-{at}-{time}"), Some(at.clone()));
            let begun = hosts.bus.call(&command, DEADLINE).await.expect("begun");
            let report = hosts.h1.ended(&begun).await;
            assert_eq!((report.state, report.host), (OperationState::Done, at), "{:?}", report.reason);
        }
    }
    for _ in 0..TIMES {
        let refused = hosts.bus.call(&restore("copy", None), DEADLINE).await.expect_err("which?");
        let several = HostRefused::Required { hosts: vec![host(), other_host()] };
        assert!(
            matches!(&refused, CallError::Refused(RestoreBackupAsVmRefused::Host(why)) if *why == several),
            "{refused}"
        );
    }
    let unfinished = hosts.h2.engine.unfinished::<RestoreBackupAsVm>().await.expect("a list");
    assert!(unfinished.is_empty());
}

#[actix::test]
async fn one_host_at_a_time_maintains_the_repository() {
    let hosts = two_hosts().await;
    hosts.back_up("web").await;
    let leases = hosts.bus.table::<LeaseRecord>(bucket::LEASES);
    let now = chrono::Utc::now();
    // Another host does, and has begun just before.
    let held = LeaseRecord {
        holder: OperationId::from_bits(1),
        host: "h3".parse().expect("a name"),
        until: now + std::time::Duration::from_secs(600),
    };
    let revision = leases.create("maintenance", &held).await.expect("written");
    let collect = hosts.bus.call(&CollectRepository { operation_id: None }, DEADLINE).await.expect("begun");
    let keep = RetentionRules { last: Some(1), ..RetentionRules::default() };
    let retention = ApplyRetention { keep, vm: None, operation_id: None };
    let retention = hosts.bus.call(&retention, DEADLINE).await.expect("begun");
    for begun in [&collect, &retention] {
        eventually("it waits for the other host", async || {
            let get = GetOperation { id: begun.operation().clone() };
            let report = hosts.bus.call_at(Service::Backup, &get, DEADLINE).await.expect("known");
            assert_eq!(report.state, OperationState::Running);
            report
                .waiting_for
                .is_some_and(|waiting| waiting.contains("host h3") || waiting.contains("a free slot"))
        })
        .await;
    }
    // That host is gone.
    leases.update("maintenance", &LeaseRecord { until: now, ..held }, revision).await.expect("written");
    for begun in [&collect, &retention] {
        assert_eq!(hosts.h1.ended(begun).await.state, OperationState::Done);
    }
    assert_eq!(leases.get("maintenance").await.expect("read"), None, "the lease is given back");
}

#[test]
fn a_row_of_version_1_is_read_and_written() {
    let lease = LeaseRecord {
        holder: OperationId::from_bits(7),
        host: host(),
        until: contract::Timestamp::UNIX_EPOCH,
    };
    let row = bus::write_row(&lease).expect("written");
    testkit::golden_row(env!("CARGO_MANIFEST_DIR"), "leases", &row);
    assert_eq!(bus::read_row(&row), Ok(lease));
}
