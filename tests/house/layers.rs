//! Who may know whom, read from the manifests as cargo resolves them.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Crates that do things. What must only decide does not have them anywhere below it.
const RUNTIMES: [&str; 12] = [
    "tokio",
    "actix",
    "actix-rt",
    "async-nats",
    "object_store",
    "virt",
    "hyper",
    "reqwest",
    "russh",
    "opentelemetry",
    "mio",
    "socket2",
];

const SERVICES: [&str; 5] = ["provisioner", "backup", "proxy", "scheduler", "upgrade"];

struct House {
    metadata: Metadata,
}

impl House {
    fn read() -> House {
        let metadata = MetadataCommand::new().exec().expect("cargo metadata reads the workspace");
        House { metadata }
    }

    fn members(&self) -> Vec<&Package> {
        self.metadata.workspace_packages()
    }

    /// What a member names in its own manifest, tests aside.
    fn names(&self, package: &Package) -> BTreeSet<String> {
        let normal = package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development);
        normal.map(|d| d.name.clone()).collect()
    }

    /// Everything below a member, tests aside.
    fn below(&self, package: &Package) -> BTreeSet<String> {
        let resolve = self.metadata.resolve.as_ref().expect("metadata comes with its resolution");
        let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
        let (mut seen, mut todo) = (BTreeSet::new(), vec![&package.id]);
        while let Some(id) = todo.pop() {
            for dep in &nodes[id].deps {
                let normal = dep.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal);
                if normal && seen.insert(&dep.pkg) {
                    todo.push(&dep.pkg);
                }
            }
        }
        seen.into_iter().map(|id| self.metadata[id].name.to_string()).collect()
    }

    /// Only these members may name this crate.
    fn only(&self, name: &str, allowed: &[&str]) {
        for package in self.members() {
            if self.names(package).contains(name) {
                assert!(
                    allowed.contains(&package.name.as_str()),
                    "{} names {name}; only {allowed:?} may",
                    package.name
                );
            }
        }
    }
}

#[test]
fn what_decides_has_no_runtime_below_it() {
    let house = House::read();
    let pure = |name: &str| name == "contract" || name == "saga" || name.ends_with("-domain");
    let mut looked_at = 0;
    for package in house.members().into_iter().filter(|package| pure(package.name.as_str())) {
        looked_at += 1;
        let below = house.below(package);
        for runtime in RUNTIMES {
            assert!(!below.contains(runtime), "{} has {runtime} below it", package.name);
        }
    }
    assert_eq!(looked_at, 7, "contract, saga and five domains");
}

#[test]
fn each_outside_world_has_one_door() {
    let house = House::read();
    house.only("async-nats", &["bus"]);
    house.only("virt", &["provisioner-libvirt"]);
    house.only("fastcdc", &["backup-repository"]);
    house.only("object_store", &["backup-repository", "backup"]);
    house.only("fuser", &["backup-export"]);
    house.only("ext4-view", &["backup-export"]);
    // Whoever lost his platform still has his store: the command opens it by itself, with the engine as a library.
    house.only("backup-repository", &["backup", "backup-export", "loam"]);
    house.only("backup-export", &["backup", "loam"]);
    house.only("opentelemetry-otlp", &["telemetry"]);
    house.only("config", &["chassis"]);
    house.only("clap", &["loam", "backup-repository"]);
    let actors = ["actor", "chassis", "provisioner", "backup", "proxy", "scheduler", "upgrade"];
    house.only("actix", &actors);
}

#[test]
fn a_service_never_imports_another() {
    let house = House::read();
    for package in house.members() {
        for service in SERVICES {
            if package.name.as_str() != service {
                assert!(
                    !house.names(package).contains(service),
                    "{} imports the service {service}",
                    package.name
                );
            }
        }
    }
    for service in SERVICES {
        house.only(
            &format!("{service}-domain"),
            if service == "provisioner" { &["provisioner", "loam"] } else { &SERVICES },
        );
    }
}

#[test]
fn the_lower_layers_do_not_know_the_upper_ones() {
    let house = House::read();
    let order = ["contract", "saga", "telemetry", "actor", "bus", "operation", "chassis"];
    let members: BTreeMap<_, _> = house.members().into_iter().map(|p| (p.name.to_string(), p)).collect();
    for (level, name) in order.iter().enumerate() {
        let names = house.names(members[*name]);
        for upper in &order[level + 1..] {
            assert!(!names.contains(*upper), "{name} knows {upper}, which is above it");
        }
        assert!(!names.contains("testkit"), "{name} carries test tools");
    }
}
