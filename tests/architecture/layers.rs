//! Which crate may depend on which, read from the manifests as cargo resolves them.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, Package};

use crate::sources;

/// Crates with effects. Crates that only decide have none of them among their dependencies, direct or indirect.
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

struct Workspace {
    metadata: Metadata,
}

impl Workspace {
    fn read() -> Workspace {
        Workspace { metadata: sources::metadata() }
    }

    fn members(&self) -> Vec<&Package> {
        self.metadata.workspace_packages()
    }

    /// The dependencies in a member's own manifest, without those of its tests.
    fn direct(&self, package: &Package) -> BTreeSet<String> {
        let normal = package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development);
        normal.map(|d| d.name.clone()).collect()
    }

    /// All dependencies of a member, without those of its tests.
    fn all(&self, package: &Package) -> BTreeSet<String> {
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

    /// Only these members may depend on this crate directly.
    fn only(&self, name: &str, allowed: &[&str]) {
        for package in self.members() {
            if self.direct(package).contains(name) {
                assert!(
                    allowed.contains(&package.name.as_str()),
                    "{} depends on {name}; only {allowed:?} may",
                    package.name
                );
            }
        }
    }
}

#[test]
fn crates_that_decide_depend_on_no_runtime() {
    let workspace = Workspace::read();
    let pure = |name: &str| ["contract", "encryption", "saga"].contains(&name) || name.ends_with("-domain");
    let mut checked = 0;
    for package in workspace.members().into_iter().filter(|package| pure(package.name.as_str())) {
        checked += 1;
        let dependencies = workspace.all(package);
        for runtime in RUNTIMES {
            assert!(!dependencies.contains(runtime), "{} depends on {runtime}", package.name);
        }
    }
    assert_eq!(checked, 8, "contract, encryption, saga and five domains");
}

#[test]
fn each_outside_system_is_named_by_its_adapter_only() {
    let workspace = Workspace::read();
    workspace.only("async-nats", &["bus"]);
    workspace.only("virt", &["provisioner-libvirt"]);
    workspace.only("fastcdc", &["backup-repository"]);
    workspace.only("object_store", &["backup-repository", "backup"]);
    workspace.only("fuser", &["backup-export"]);
    workspace.only("ext4-view", &["backup-export"]);
    // When all services are lost, the command opens the backup store itself, with the engine as a library.
    workspace.only("backup-repository", &["backup", "backup-export", "loam"]);
    workspace.only("backup-export", &["backup", "loam"]);
    workspace.only("opentelemetry-otlp", &["telemetry"]);
    workspace.only("config", &["chassis"]);
    workspace.only("clap", &["loam", "backup-repository"]);
    let actors = ["actor", "chassis", "provisioner", "backup", "proxy", "scheduler", "upgrade"];
    workspace.only("actix", &actors);
}

#[test]
fn a_service_never_imports_another() {
    let workspace = Workspace::read();
    for package in workspace.members() {
        for service in SERVICES {
            if package.name.as_str() != service {
                assert!(
                    !workspace.direct(package).contains(service),
                    "{} imports the service {service}",
                    package.name
                );
            }
        }
    }
    for service in SERVICES {
        let allowed: &[&str] = match service {
            "provisioner" => &["provisioner", "loam"],
            // The supervisor verifies releases again, by the same rules.
            "upgrade" => &["upgrade", "loam"],
            _ => &SERVICES,
        };
        workspace.only(&format!("{service}-domain"), allowed);
    }
}

#[test]
fn lower_layers_do_not_depend_on_upper_ones() {
    let workspace = Workspace::read();
    let order = ["contract", "saga", "telemetry", "actor", "bus", "operation", "chassis"];
    let members: BTreeMap<_, _> = workspace.members().into_iter().map(|p| (p.name.to_string(), p)).collect();
    for (level, name) in order.iter().enumerate() {
        let dependencies = workspace.direct(members[*name]);
        for upper in &order[level + 1..] {
            assert!(!dependencies.contains(*upper), "{name} depends on {upper}, which is above it");
        }
        assert!(!dependencies.contains("testkit"), "{name} depends on test tools");
    }
}
