//! What others do on the host: it is kept, named, or reported.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use provisioner_libvirt::events::watch;
use provisioner_libvirt::network::{Forward, NetworkSpec};
use provisioner_libvirt::{Connection, EnsureOutcome, Error, Settings};

use crate::MOMENT;
use crate::realm::{Realm, eventually};

#[test]
fn a_bridge_or_an_address_in_use_is_named_and_nothing_stays_defined() {
    let Some(realm) = Realm::shared() else { return };
    let mut connection = realm.connection();
    let ip = |arguments: &[&str]| {
        let status = Command::new("ip").args(arguments).status();
        assert!(status.expect("iproute2").success(), "{arguments:?}");
    };
    ip(&["link", "add", "taken0", "type", "bridge"]);
    ip(&["address", "add", "10.108.0.1/24", "dev", "taken0"]);
    let spec = NetworkSpec {
        name: "taken".into(),
        bridge: "taken0".into(),
        host_address: Ipv4Addr::new(10, 109, 0, 1),
        prefix_length: 24,
        dhcp_range: (Ipv4Addr::new(10, 109, 0, 10), Ipv4Addr::new(10, 109, 0, 20)),
        forward: Forward::Isolated,
    };
    let other = NetworkSpec {
        bridge: "taken1".into(),
        host_address: Ipv4Addr::new(10, 108, 0, 2),
        dhcp_range: (Ipv4Addr::new(10, 108, 0, 10), Ipv4Addr::new(10, 108, 0, 20)),
        ..spec.clone()
    };
    for (spec, text) in
        [(&spec, "interface taken0"), (&other, "interface taken0 of this host has 10.108.0.1/24")]
    {
        let refused = connection.ensure_network(spec);
        let Err(Error::NetworkInUse { reason, .. }) = &refused else { panic!("{refused:?}") };
        assert!(reason.contains(text), "{reason}");
        assert_eq!(connection.remove_network("taken").expect("none"), EnsureOutcome::AlreadyInPlace);
    }
    ip(&["link", "delete", "taken0"]);
    for spec in [&spec, &other] {
        assert_eq!(connection.ensure_network(spec).expect("free"), EnsureOutcome::Changed);
        assert_eq!(connection.remove_network("taken").expect("ours"), EnsureOutcome::Changed);
    }
    // libvirt itself refuses: nothing that is half made stays.
    let broken = NetworkSpec { dhcp_range: (Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(10, 1, 0, 2)), ..spec };
    connection.ensure_network(&broken).expect_err("its addresses are elsewhere");
    assert_eq!(connection.remove_network("taken").expect("none"), EnsureOutcome::AlreadyInPlace);
}

#[test]
fn what_others_change_in_a_domain_stays_and_its_disks_are_shown_as_they_are() {
    let Some(realm) = Realm::shared() else { return };
    let mut connection = realm.connection();
    connection.ensure_network(&realm.network()).expect("a network");
    let machine = realm.machine("changed", 512 << 20);
    let uuid = machine.spec.uuid;
    assert_eq!(connection.disks(uuid).expect("an answer"), None);
    assert_eq!(connection.definition(uuid).expect("an answer"), None);
    connection.define(&machine.spec).expect("defined");
    let disk = |connection: &mut provisioner_libvirt::Connection| {
        let disks = connection.disks(uuid).expect("an answer").expect("it is defined");
        disks[0].source.clone().expect("a file")
    };
    assert_eq!(disk(&mut connection), machine.spec.disks[0].path);
    let virsh = |arguments: &[&str]| {
        let id = uuid.to_string();
        let output = Command::new("virsh")
            .args(["-q", "-c", "qemu:///system", arguments[0], &id])
            .args(&arguments[1..])
            .output();
        let output = output.expect("virsh");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    virsh(&["desc", "--config", "mine"]);
    virsh(&["setmaxmem", "300M", "--config"]);
    virsh(&["autostart"]);
    virsh(&["snapshot-create-as", "ext", "--disk-only"]);

    let definition = connection.definition(uuid).expect("an answer").expect("it is defined");
    assert_eq!(connection.define(&machine.spec).expect("kept"), EnsureOutcome::AlreadyInPlace);
    assert_eq!(connection.definition(uuid).expect("an answer").as_ref(), Some(&definition));
    assert!(definition.contains("<description>mine</description>"), "{definition}");
    assert!(
        virsh(&["dominfo"]).lines().any(|line| line.starts_with("Autostart") && line.ends_with("enable"))
    );
    let overlay = disk(&mut connection);
    assert_ne!(overlay, machine.spec.disks[0].path);
    let found = connection.marked_domains().expect("a list");
    let found = found.iter().find(|found| found.uuid == uuid).expect("ours is in it");
    assert_eq!(found.disks[0].source.as_ref(), Some(&overlay));

    connection.undefine(uuid).expect("undefined");
    connection.restore_definition(uuid, &definition).expect("defined");
    connection.restore_definition(uuid, &definition).expect("defined before");
    // libvirt adds and orders devices as it likes.
    let restored = connection.definition(uuid).expect("an answer").expect("it is defined");
    for part in ["<description>mine</description>", "<memory unit='KiB'>307200</memory>", "root.ext'/>"] {
        assert!(definition.contains(part) && restored.contains(part), "{part}: {restored}");
    }
    connection.undefine(uuid).expect("undefined");
}

#[test]
fn what_happens_to_a_domain_is_reported_at_once_also_after_the_daemon_was_away() {
    let Some(realm) = Realm::alone() else { return };
    let changes = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&changes);
    let changed = Arc::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    watch(Settings::system("/run/loam-test"), changed).expect("a watch");
    let more = |than: u32| eventually(MOMENT, || changes.load(Ordering::SeqCst) > than);
    more(0);
    let mut connection = realm.connection();
    connection.ensure_network(&realm.network()).expect("a network");
    let machine = realm.machine("watched", 512 << 20);
    let uuid = machine.spec.uuid;
    let reported = |connection: &mut Connection,
                    act: &dyn Fn(&mut Connection) -> Result<EnsureOutcome, Error>| {
        let before = changes.load(Ordering::SeqCst);
        act(connection).expect("done");
        more(before);
    };
    reported(&mut connection, &|connection| connection.define(&machine.spec));
    reported(&mut connection, &|connection| connection.start(uuid));
    reported(&mut connection, &|connection| connection.suspend(uuid));
    reported(&mut connection, &|connection| connection.resume(uuid));

    let before = changes.load(Ordering::SeqCst);
    realm.kill_daemon();
    more(before);
    let before = changes.load(Ordering::SeqCst);
    realm.start_daemon();
    more(before);
    eventually(MOMENT, || connection.version().is_ok());
    reported(&mut connection, &|connection| connection.destroy(uuid));
    reported(&mut connection, &|connection| connection.undefine(uuid));
}
