//! Rows of a later version: a build that is put back starts on what the newer one wrote, serves what it can read, names
//! what it cannot, and leaves that as it is.

use std::collections::BTreeMap;
use std::time::Duration;

use bus::{CallError, Caller, Destination, Encoding, Transport};
use contract::bucket::{self, KvBucket};
use contract::health::CheckHealth;
use contract::operation::{BegunOperation, ListOperations, OperationState};
use contract::provisioner::{CloseDisks, CreateVm, CreateVmRefused, GetVm, ListSeeds, ListVms, StopVm};
use contract::scheduler::{ListRuns, ListSchedules, RunStartStatus, ScheduledCommand, ScheduledRun};
use contract::{HostName, OperationId, ScheduleId, Service, VmName};
use serde_json::{Value, json};
use system_tests::Installation;
use testkit::eventually;

use crate::provision::create_web;

const CALL_MAX: Duration = Duration::from_secs(20);

/// The tables of one service, with its own key.
pub(crate) async fn tables_of(installation: &Installation, service: Service) -> bus::nats::NatsTransport {
    let client = std::fs::read_to_string(installation.state().join("client.toml")).expect("readable");
    let url = client.lines().find(|line| line.starts_with("url")).and_then(|line| line.split('"').nth(1));
    let connection = bus::nats::Connection {
        url: url.expect("an address").into(),
        nkey_file: Some(installation.state().join(format!("keys/{service}.nk"))),
        ca_file: None,
        name: "system-test".into(),
        user: contract::permissions::User::Service(service),
    };
    bus::nats::connect(&connection, CALL_MAX).await.expect("connected")
}

/// A row of this version.
fn row(value: &serde_json::Value) -> Vec<u8> {
    [&[0x92, 1], &Encoding::MessagePack.write(value).expect("plain data")[..]].concat()
}

/// The same row as a later version may write it.
fn of_a_later_version(row: &[u8]) -> Vec<u8> {
    [&[0x92, 9], &row[2..]].concat()
}

/// The row with a case that this version does not know.
fn with_an_unknown_case(row: &[u8], case: &str) -> Vec<u8> {
    let at = row.windows(case.len()).position(|bytes| bytes == case.as_bytes()).expect("the case is in it");
    let mut odd = row.to_vec();
    odd[at + case.len() - 1] = b'x';
    odd
}

/// The row with one more field in the map at this place.
fn with_an_unknown_field(row: &[u8], at: usize) -> Vec<u8> {
    assert!((0x80..0x8f).contains(&row[at]), "a map of at most 14 fields");
    let more = Encoding::MessagePack.write(&json!({ "later": true })).expect("plain data");
    [&row[..at], &[row[at] + 1], &more[1..], &row[at + 1..]].concat()
}

/// What a test wrote, by table and key: it must stay as it is.
struct Written<'a> {
    tables: &'a bus::nats::NatsTransport,
    rows: BTreeMap<(&'static str, String), Vec<u8>>,
}

impl Written<'_> {
    async fn put(&mut self, table: KvBucket, key: &str, row: Vec<u8>) {
        let old = self.tables.get(table.name, key).await.expect("read").map_or(0, |old| old.revision);
        self.tables.put(table.name, key, row.clone().into(), old).await.expect("written");
        self.rows.insert((table.name, key.into()), row);
    }

    /// Waits until the health of the service names all of them, and checks that they are as they were.
    async fn are_named_and_untouched(&self, installation: &Installation, service: Service) {
        eventually("health names every row", async || {
            let Ok(health) = installation.bus().call_at(service, &CheckHealth {}, CALL_MAX).await else {
                return false;
            };
            let rows = health.parts.iter().find(|part| part.part == "rows");
            let named = rows.and_then(|part| part.problem.clone()).unwrap_or_default();
            self.rows.keys().all(|(table, key)| named.contains(&format!("{table}.{key} ")))
        })
        .await;
        for ((table, key), row) in &self.rows {
            let stored = self.tables.get(table, key).await.expect("read").expect("there");
            assert_eq!(&stored.value[..], row, "{table}.{key}");
        }
    }
}

/// A good row of a table.
async fn good(tables: &bus::nats::NatsTransport, table: KvBucket, prefix: &str) -> (String, Vec<u8>) {
    let mut rows = tables.read_page(table.name, prefix, 0).await.expect("listed").rows;
    // A key may have several revisions.
    rows.sort_by_key(|row| (row.key.clone(), std::cmp::Reverse(row.revision)));
    let row = rows.swap_remove(0);
    (row.key, row.value.to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_provisioner_lives_with_rows_of_a_later_version() {
    let installation = Installation::simulated().await;
    create_web(&installation).await;
    let tables = tables_of(&installation, Service::Provisioner).await;
    let mut written = Written { tables: &tables, rows: BTreeMap::new() };
    let id = |number| OperationId::from_parts(1_800_000_000_000, number);

    let (vm_key, vm) = good(&tables, bucket::VMS, "").await;
    let (seed_key, seed) = good(&tables, bucket::SEEDS, "").await;
    let (operation_key, operation) = good(&tables, bucket::OPERATIONS, "").await;
    let export = row(&json!({
        "operation": id(1), "vm": "web", "uuid": "00000000-0000-4000-8000-000000000000",
        "served_by": "hypervisor", "phase": "opening",
    }));
    let (host, _) = vm_key.split_once('.').expect("a host and a UUID");
    let at_host = |key: &str| format!("{host}.{key}");
    let uuid = |number| format!("00000000-0000-4000-8000-{number:012}");
    for (number, name) in [(1, "later"), (2, "odd")] {
        let name_row =
            json!({ "host": host, "uuid": uuid(number), "by": id(1), "reserved_until": Value::Null });
        tables.put(bucket::VM_NAMES.name, name, row(&name_row).into(), 0).await.expect("written");
    }
    written.put(bucket::VMS, &at_host(&uuid(1)), of_a_later_version(&vm)).await;
    written.put(bucket::VMS, &at_host(&uuid(2)), with_an_unknown_case(&vm, "exists")).await;
    written.put(bucket::SEEDS, &at_host("later"), of_a_later_version(&seed)).await;
    written.put(bucket::SEEDS, &at_host("odd"), with_an_unknown_case(&seed, "imported")).await;
    written.put(bucket::DISK_EXPORTS, &at_host(id(1).as_str()), of_a_later_version(&export)).await;
    written
        .put(bucket::DISK_EXPORTS, &at_host(id(2).as_str()), with_an_unknown_case(&export, "opening"))
        .await;
    written.put(bucket::OPERATIONS, id(3).as_str(), of_a_later_version(&operation)).await;
    written.put(bucket::OPERATIONS, id(4).as_str(), with_an_unknown_case(&operation, "done")).await;
    let mut more = Written { tables: &tables, rows: BTreeMap::new() };
    more.put(bucket::VMS, &vm_key, with_an_unknown_field(&vm, 2)).await;
    let inner = 4 + "imported".len();
    more.put(bucket::SEEDS, &seed_key, with_an_unknown_field(&seed, inner)).await;
    more.put(bucket::OPERATIONS, &operation_key, with_an_unknown_field(&operation, 2)).await;
    let count = installation.ask_at(Service::Provisioner, ListOperations::default()).await.len();

    installation.kill(Service::Provisioner).await;
    written.are_named_and_untouched(&installation, Service::Provisioner).await;
    let vms = installation.ask(ListVms {}).await;
    assert_eq!(vms.iter().map(|vm| vm.definition.name.as_str()).collect::<Vec<_>>(), ["web"]);
    assert_eq!(installation.ask(ListSeeds {}).await.len(), 1);
    let listed = installation.ask_at(Service::Provisioner, ListOperations::default()).await;
    assert_eq!(listed.len(), count);

    // What cannot be read keeps its name and its id, and is not taken for gone.
    for name in ["later", "odd"] {
        let mut definition = vms[0].definition.clone();
        definition.name = VmName::new(name).expect("valid");
        definition.domains.clear();
        let refused = installation
            .refused(CreateVm {
                definition: definition.clone(),
                host: None,
                overcommit: false,
                operation_id: None,
            })
            .await;
        assert_eq!(refused, CreateVmRefused::NameTaken(definition.name.clone()));
        match installation.bus().call(&GetVm { vm: definition.name }, CALL_MAX).await {
            Err(CallError::Failed(failure)) => assert!(failure.message.contains(name), "{failure}"),
            other => panic!("{other:?}"),
        }
    }
    for number in [3, 4] {
        let stop = StopVm { vm: VmName::new("web").expect("valid"), operation_id: Some(id(number)) };
        match installation.bus().call(&stop, CALL_MAX).await {
            Err(CallError::Failed(failure)) => {
                assert!(failure.message.contains(id(number).as_str()), "{failure}");
            }
            other => panic!("{other:?}"),
        }
    }
    // The others work as ever.
    let stop = StopVm { vm: VmName::new("web").expect("valid"), operation_id: Some(id(5)) };
    assert_eq!(installation.ask(stop).await, BegunOperation::Begun(id(5)));
    let report = installation.end_of(Service::Provisioner, &id(5)).await;
    assert_eq!(report.state, OperationState::Done, "{:?}", report.reason);
    written.are_named_and_untouched(&installation, Service::Provisioner).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scheduler_lives_with_rows_of_a_later_version() {
    let installation = Installation::simulated().await;
    let nightly =
        ["schedule", "add", "nightly", "--cron", "30 2 * * *", "--time-zone", "UTC", "--backup", "web"];
    installation.loam_json(&nightly);
    let tables = tables_of(&installation, Service::Scheduler).await;
    let mut written = Written { tables: &tables, rows: BTreeMap::new() };
    let (key, schedule) = good(&tables, bucket::SCHEDULES, "").await;
    written.put(bucket::SCHEDULES, "later", of_a_later_version(&schedule)).await;
    // The first "backup" is the service that the schedule names.
    written.put(bucket::SCHEDULES, "odd", with_an_unknown_case(&schedule, "backup")).await;
    let time = "2026-01-01T02:30:00Z".parse().expect("a time");
    let id = ScheduleId::new("nightly").expect("valid");
    let outcome = RunStartStatus::Started(OperationId::from_bits(1));
    let run = row(&json!({
        "run": ScheduledRun { schedule: id.clone(), due: time, fired: time, outcome },
        "command": ScheduledCommand { service: Service::Backup, command: "start_backup".into(), body: json!({}) },
        "created_by": Caller::Anonymous,
        "instance": "another",
    }));
    written.put(bucket::RUNS, "nightly.100", of_a_later_version(&run)).await;
    written.put(bucket::RUNS, "nightly.200", with_an_unknown_case(&run, "started")).await;
    let mut more = Written { tables: &tables, rows: BTreeMap::new() };
    more.put(bucket::SCHEDULES, &key, with_an_unknown_field(&schedule, 2)).await;
    more.put(bucket::RUNS, "nightly.300", with_an_unknown_field(&run, 2)).await;

    installation.kill(Service::Scheduler).await;
    written.are_named_and_untouched(&installation, Service::Scheduler).await;
    let schedules = installation.ask(ListSchedules {}).await;
    assert_eq!(schedules.iter().map(|status| status.schedule.id.as_str()).collect::<Vec<_>>(), ["nightly"]);
    assert_eq!(installation.ask(ListRuns { id }).await.len(), 1);
    let weekly =
        ["schedule", "add", "weekly", "--cron", "0 3 * * 0", "--time-zone", "UTC", "--backup", "web"];
    installation.loam_json(&weekly);
    let taken = ["schedule", "add", "later", "--cron", "0 3 * * 0", "--time-zone", "UTC", "--backup", "web"];
    let refused = installation.loam(&taken);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("schedules.later cannot be read"), "{text}");
    written.are_named_and_untouched(&installation, Service::Scheduler).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backup_proxy_and_upgrade_live_with_rows_of_a_later_version() {
    let installation = Installation::simulated().await;
    create_web(&installation).await;
    installation.loam_json(&["backup", "run", "web"]);
    let backup_tables = tables_of(&installation, Service::Backup).await;
    let (_, operation) = good(&backup_tables, bucket::OPERATIONS, "").await;
    for service in [Service::Backup, Service::Upgrade] {
        let tables = tables_of(&installation, service).await;
        let mut written = Written { tables: &tables, rows: BTreeMap::new() };
        for (number, row) in
            [of_a_later_version(&operation), with_an_unknown_case(&operation, "done")].into_iter().enumerate()
        {
            let id = OperationId::from_bits(number as u128);
            written.put(bucket::OPERATIONS, id.as_str(), row).await;
        }
        installation.kill(service).await;
        written.are_named_and_untouched(&installation, service).await;
        installation.ask_at(service, ListOperations::default()).await;
    }
    // Once it has opened its store again.
    eventually("a new backup is made", async || {
        installation.loam(&["backup", "run", "web"]).status.success()
    })
    .await;

    let tables = tables_of(&installation, Service::Proxy).await;
    let (key, routes) = good(&tables, bucket::ROUTES, "").await;
    // The state of a VM may be one that is not known: the proxy routes such a VM.
    let mut written = Written { tables: &tables, rows: BTreeMap::new() };
    written.put(bucket::ROUTES, &key, of_a_later_version(&routes)).await;
    installation.kill(Service::Proxy).await;
    written.are_named_and_untouched(&installation, Service::Proxy).await;
    let proxy = installation.proxy().await;
    eventually("the page is reached", async || {
        system_tests::get(proxy, "web.example", "/").await.is_ok_and(|answer| answer.status == 200)
    })
    .await;
    written.are_named_and_untouched(&installation, Service::Proxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exports_whose_row_cannot_be_read_are_not_reported_as_closed() {
    let installation = Installation::simulated().await;
    let tables = tables_of(&installation, Service::Provisioner).await;
    let id = OperationId::from_bits(7);
    let host = HostName::new("h1").expect("valid");
    let key = format!("{host}.{id}");
    tables.put(bucket::DISK_EXPORTS.name, &key, vec![0x92, 9, 0x80].into(), 0).await.expect("written");
    installation.kill(Service::Provisioner).await;
    installation.ask(ListVms {}).await;
    let backup = bus::Bus::new(
        std::sync::Arc::new(tables_of(&installation, Service::Backup).await),
        installation.bus().realm().clone(),
    );
    let here = Destination::on(Service::Provisioner, &host);
    match backup.call_at(here, &CloseDisks { operation_id: id.clone() }, CALL_MAX).await {
        Err(CallError::Failed(failure)) => assert!(failure.message.contains(id.as_str()), "{failure}"),
        other => panic!("{other:?}"),
    }
}
