//! One golden sample a word, as JSON and as MessagePack: what was once said must stay readable, and today's words
//! must be written as they were. A new or changed word: run with `LOAM_WRITE_SAMPLES=1` and read the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use contract::backup::*;
use contract::operation::*;
use contract::provisioner::*;
use contract::proxy::*;
use contract::scheduler::*;
use contract::supervisor::*;
use contract::upgrade::*;
use contract::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

struct Samples {
    folder: PathBuf,
    write: bool,
    seen: BTreeSet<String>,
    wrong: Vec<String>,
}

impl Samples {
    fn hold<T: Serialize + DeserializeOwned>(&mut self, name: &str, value: &T) {
        assert!(self.seen.insert(name.to_string()), "{name} is sampled twice");
        let json = serde_json::to_string_pretty(value).expect("plain data") + "\n";
        let packed = rmp_serde::to_vec_named(value).expect("plain data");
        let (json_path, packed_path) =
            (self.folder.join(format!("{name}.json")), self.folder.join(format!("{name}.msgpack")));
        if self.write {
            std::fs::write(&json_path, &json).expect("written");
            std::fs::write(&packed_path, &packed).expect("written");
        }
        if std::fs::read_to_string(&json_path).ok().as_deref() != Some(json.as_str()) {
            self.wrong.push(format!("{name}.json differs or is missing"));
        }
        match std::fs::read(&packed_path) {
            Ok(bytes) if bytes == packed => {}
            _ => self.wrong.push(format!("{name}.msgpack differs or is missing")),
        }
        // Both forms say the same.
        let from_packed: T = rmp_serde::from_slice(&packed).expect("readable");
        let from_json: T = serde_json::from_str(&json).expect("readable");
        let plain = |value: &T| serde_json::to_value(value).expect("plain data");
        assert_eq!(plain(&from_packed), plain(value), "{name}");
        assert_eq!(plain(&from_json), plain(value), "{name}");
    }

    fn request<R: Request>(&mut self, request: &R, reply: &R::Reply) {
        self.hold(R::NAME, request);
        self.hold(&format!("{}.reply", R::NAME), reply);
    }

    fn refusals<R: Request>(&mut self, refusals: &[R::Refusal]) {
        let rows: Vec<&R::Refusal> = refusals.iter().collect();
        let json = serde_json::to_value(rows).expect("plain data");
        self.hold(&format!("{}.refused", R::NAME), &json);
    }

    fn event<E: Event>(&mut self, event: &E) {
        self.hold(&format!("event.{}", E::NAME), event);
    }
}

fn name<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().expect("a valid name")
}

fn time() -> Timestamp {
    "2026-11-22T06:30:00Z".parse().expect("valid")
}

fn id() -> OperationId {
    name("01K9NXQZ6R3W4V5T8Y2B7C1D0E")
}

fn definition() -> VmDefinition {
    VmDefinition {
        name: name("web"),
        seed: name("debian-12"),
        cpu_count: 2,
        ram_size: ByteCount::gib(1),
        disk_size: ByteCount::gib(10),
        domains: vec![DomainRoute { domain: name("web.example"), port: 80 }],
        env: BTreeMap::from([("GREETING".into(), "hello".into())]),
        install: vec![Script { name: "install.sh".into(), text: "#!/bin/sh\necho $GREETING\n".into() }],
    }
}

fn vm() -> Vm {
    Vm {
        definition: definition(),
        uuid: "0b2d1b9e-5f0f-4e0b-8a4e-0d5f1b9e5f0f".into(),
        mac: "52:54:00:aa:bb:cc".into(),
        host: name("h1"),
        state: VmState::Ready,
        address: Some("10.88.0.23".into()),
        locked_by: None,
        created: time(),
        hypervisor: "libvirt".into(),
    }
}

fn report() -> OperationReport {
    OperationReport {
        id: id(),
        service: Service::Backup,
        kind: "start_backup".into(),
        about: "web".into(),
        state: OperationState::Running,
        step: Some("copy".into()),
        steps_done: 1,
        steps_total: 5,
        progress: Some(Progress { done_bytes: 10, total_bytes: 20, stored_bytes: Some(5) }),
        reason: None,
        output: None,
        begun: time(),
        moved: time(),
        trace_id: Some("0af7651916cd43dd8448eb211c80319c".into()),
    }
}

fn backup() -> Backup {
    Backup {
        id: BackupId::from(&id()),
        vm: name("web"),
        taken: time(),
        consistency: Consistency::Filesystem,
        disks: vec![BackedUpDisk { disk: name("vda"), size: ByteCount::gib(10) }],
        schedule: Some(name("nightly")),
        bytes_read: ByteCount::mib(500),
        bytes_new: ByteCount::mib(20),
        bytes_stored: ByteCount::mib(9),
        took_ms: 4200,
    }
}

fn health() -> Health {
    Health {
        service: Service::Backup,
        version: "0.1.0".into(),
        build: "0123456789abcdef".into(),
        instance: "01K9NXQZ6R3W4V5T8Y2B7C1D0E".into(),
        since: time(),
        parts: vec![
            PartHealth { part: "store".into(), trouble: None },
            PartHealth { part: "libvirt".into(), trouble: Some("no answer".into()) },
        ],
    }
}

fn schedule() -> Schedule {
    Schedule {
        id: name("nightly"),
        cron: "30 2 * * *".into(),
        time_zone: "Europe/Paris".into(),
        work: ScheduledWork::Backup { vm: name("web") },
    }
}

fn run() -> Run {
    Run { schedule: name("nightly"), due: time(), fired: time(), outcome: RunOutcome::Begun(id()) }
}

#[test]
fn every_word_is_written_as_it_was() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("wire");
    let write = std::env::var_os("LOAM_WRITE_SAMPLES").is_some();
    let mut s = Samples { folder, write, seen: BTreeSet::new(), wrong: Vec::new() };
    let (begun, digest) = (Begun::Begun(id()), "a".repeat(64));

    s.request(&ListOperations { unfinished_only: true }, &vec![report()]);
    s.request(&GetOperation { id: id() }, &report());
    s.refusals::<GetOperation>(&[UnknownOperation { id: id() }]);
    s.request(&CancelOperation { id: id() }, &report());
    s.request(&CheckHealth {}, &health());
    let seed = Seed {
        name: name("debian-12"),
        sha256: digest.clone(),
        virtual_size: ByteCount::gib(2),
        stored_size: ByteCount::mib(300),
        added: time(),
    };
    let add = AddSeed {
        name: name("debian-12"),
        from: "/srv/debian-12.qcow2".into(),
        sha256: digest.clone(),
        operation_id: Some(id()),
    };
    s.request(&add, &begun);
    s.refusals::<AddSeed>(&[
        AddSeedRefused::NotADigest("x".into()),
        AddSeedRefused::NotASource("x".into()),
        AddSeedRefused::NameTaken { name: name("debian-12"), sha256: digest.clone() },
        AddSeedRefused::Busy(id()),
        AddSeedRefused::IdReused(id()),
    ]);
    s.request(&ListSeeds {}, &vec![seed.clone()]);
    s.request(&RemoveSeed { name: name("debian-12") }, &seed);
    s.refusals::<RemoveSeed>(&[
        RemoveSeedRefused::Unknown(name("debian-12")),
        RemoveSeedRefused::InUse { name: name("debian-12"), vms: vec![name("web")] },
    ]);
    s.request(&CreateVm { definition: definition(), operation_id: None }, &begun);
    s.refusals::<CreateVm>(&[
        CreateVmRefused::NameTaken(name("web")),
        CreateVmRefused::UnknownSeed(name("debian-12")),
        CreateVmRefused::DiskTooSmall { asked: ByteCount::mib(1), seed: ByteCount::gib(2) },
        CreateVmRefused::DomainTaken { domain: name("web.example"), vm: name("web") },
        CreateVmRefused::Invalid { field: "cpu_count".into(), reason: "0 is not between 1 and 64".into() },
        CreateVmRefused::IdReused(id()),
    ]);
    s.request(&StartVm { vm: name("web"), operation_id: None }, &begun);
    s.refusals::<StartVm>(&[
        VmRefused::Unknown(name("web")),
        VmRefused::Locked { vm: name("web"), by: id() },
        VmRefused::Already { vm: name("web"), state: "running".into() },
        VmRefused::IdReused(id()),
    ]);
    s.request(&StopVm { vm: name("web"), operation_id: Some(id()) }, &Begun::AlreadyBegun(id()));
    s.request(&RemoveVm { vm: name("web"), operation_id: None }, &begun);
    s.request(&ListVms {}, &vec![vm()]);
    s.request(&GetVm { vm: name("web") }, &vm());
    let opened = OpenedDisks {
        host: name("h1"),
        doors: vec![DiskDoor {
            disk: name("vda"),
            size: ByteCount::gib(10),
            socket: "/var/lib/loam/doors/x.sock".into(),
            export: "vda".into(),
        }],
        definition: definition(),
        consistency: Consistency::Filesystem,
        lease_seconds: 120,
    };
    s.request(&OpenDisks { vm: name("web"), operation_id: id() }, &opened);
    s.refusals::<OpenDisks>(&[
        OpenDisksRefused::Unknown(name("web")),
        OpenDisksRefused::Busy { vm: name("web"), by: id() },
        OpenDisksRefused::NotReadable { vm: name("web"), state: "creating".into() },
    ]);
    s.request(&RenewDisks { operation_id: id() }, &Renewed { lease_seconds: 120 });
    s.refusals::<RenewDisks>(&[NotOpen { operation_id: id() }]);
    s.request(&CloseDisks { operation_id: id() }, &Closed { stood_open: true });
    let disks = vec![DiskSize { disk: name("vda"), size: ByteCount::gib(10) }];
    let places = vec![DiskPlace { disk: name("vda"), path: "/var/lib/loam/vms/web2/vda.raw".into() }];
    s.request(
        &ReserveVm { definition: definition(), disks, operation_id: id() },
        &ReservedVm { host: name("h1"), disks: places },
    );
    s.request(&ReleaseVm { vm: name("web2"), operation_id: id() }, &Released { was_reserved: true });
    s.request(&AdoptVm { vm: name("web2"), reserved_by: id(), operation_id: id() }, &begun);
    s.refusals::<AdoptVm>(&[
        AdoptVmRefused::NotReserved { vm: name("web2"), reserved_by: id() },
        AdoptVmRefused::DiskMissing(name("vda")),
        AdoptVmRefused::IdReused(id()),
    ]);
    s.event(&VmChanged { name: name("web"), vm: Some(vm()) });
    s.event(&OperationMoved(report()));

    s.request(
        &StartBackup { vm: name("web"), schedule: Some(name("nightly")), operation_id: Some(id()) },
        &begun,
    );
    s.refusals::<StartBackup>(&[
        StartBackupRefused::Unknown(name("web")),
        StartBackupRefused::UnderWay { vm: name("web"), by: id() },
        StartBackupRefused::IdReused(id()),
    ]);
    s.request(&RestoreBackup { backup: name("web@latest"), as_vm: name("web2"), operation_id: None }, &begun);
    s.refusals::<RestoreBackup>(&[
        RestoreBackupRefused::Unknown(name("web@latest")),
        RestoreBackupRefused::Ambiguous { given: name("web@01"), candidates: vec![BackupId::from(&id())] },
        RestoreBackupRefused::NameTaken(name("web2")),
        RestoreBackupRefused::IdReused(id()),
    ]);
    s.request(&VerifyBackup { backup: name("web@latest"), operation_id: None }, &begun);
    s.request(&ListBackups { vm: Some(name("web")) }, &vec![backup()]);
    s.event(&BackupSealed(backup()));

    let routes = vec![
        RouteRow {
            domain: name("web.example"),
            vm: name("web"),
            target: RouteTarget::Address("10.88.0.23:80".into()),
        },
        RouteRow {
            domain: name("old.example"),
            vm: name("old"),
            target: RouteTarget::Unavailable("vm old is stopped".into()),
        },
    ];
    s.request(&ListRoutes {}, &Routes { http_listener: "127.0.0.1:8080".into(), routes });

    let status = ScheduleStatus { schedule: schedule(), next: Some(time()), last: Some(run()) };
    s.request(&AddSchedule { schedule: schedule() }, &status);
    s.refusals::<AddSchedule>(&[
        AddScheduleRefused::NameTaken(name("nightly")),
        AddScheduleRefused::BadCron { cron: "x".into(), reason: "unreadable".into() },
        AddScheduleRefused::UnknownTimeZone("Mars/Base".into()),
    ]);
    s.request(&RemoveSchedule { id: name("nightly") }, &schedule());
    s.refusals::<RemoveSchedule>(&[UnknownSchedule { id: name("nightly") }]);
    s.request(&ListSchedules {}, &vec![status]);
    s.request(&ListRuns { id: name("nightly") }, &vec![run()]);
    s.event(&RunFired(run()));

    s.request(&ListServices {}, &vec![RunningService { health: health(), host: "h1".into() }]);
    s.request(&ApplyRelease { folder: "/srv/release".into(), operation_id: None }, &begun);
    s.refusals::<ApplyRelease>(&[
        ApplyReleaseRefused::Unreadable("/srv/release: not found".into()),
        ApplyReleaseRefused::Unsigned("release.toml.minisig".into()),
        ApplyReleaseRefused::Untrusted("no trusted key made this signature".into()),
        ApplyReleaseRefused::Altered {
            file: "loam-proxy".into(),
            found: digest.clone(),
            signed: digest.clone(),
        },
        ApplyReleaseRefused::UnderWay(id()),
        ApplyReleaseRefused::NotReplaceable(Service::Upgrade),
        ApplyReleaseRefused::IdReused(id()),
    ]);
    let manifest = ReleaseManifest {
        service: Service::Proxy,
        version: "0.2.0".into(),
        file: "loam-proxy".into(),
        sha256: digest,
        made: time(),
    };
    s.hold("release_manifest", &manifest);
    let process = Process {
        service: Service::Proxy,
        pid: Some(4242),
        executable: "/usr/bin/loam-proxy".into(),
        since: time(),
        restarts: 0,
    };
    s.request(&ListProcesses {}, &vec![process]);
    let executable = PathBuf::from("/var/lib/loam/releases/proxy/0123456789abcdef/loam-proxy");
    s.request(
        &ReplaceService { service: Service::Proxy, executable },
        &Replaced { before: "/usr/bin/loam-proxy".into() },
    );
    s.refusals::<ReplaceService>(&[
        ReplaceServiceRefused::NotUsable {
            path: "/tmp/x".into(),
            reason: "lies outside the releases folder".into(),
        },
        ReplaceServiceRefused::NotHere(Service::Upgrade),
    ]);

    for entry in book::requests() {
        assert!(s.seen.contains(entry.name), "{} has no sample", entry.name);
    }
    for entry in book::events() {
        assert!(s.seen.contains(&format!("event.{}", entry.name)), "event {} has no sample", entry.name);
    }
    assert!(s.wrong.is_empty(), "samples differ; `LOAM_WRITE_SAMPLES=1` writes them anew: {:#?}", s.wrong);
}

#[test]
fn a_field_that_is_not_known_yet_is_passed_over_in_messages_and_refused_in_files() {
    let newer = r#"{ "vm": "web", "colour": "green" }"#;
    serde_json::from_str::<GetVm>(newer).expect("a newer asker is understood");
    let file = r#"{ "service": "proxy", "version": "1.0.0", "file": "x", "sha256": "y", "made": "2026-11-22T06:30:00Z", "colour": "green" }"#;
    assert!(serde_json::from_str::<ReleaseManifest>(file).is_err());
}
