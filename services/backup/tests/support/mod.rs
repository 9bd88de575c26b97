//! What the tests of the backup service share: a fake provisioner that behaves like the contract, a repository in a
//! folder, and the service with real actors on the memory bus.

#![allow(dead_code, unreachable_pub, reason = "each test file uses what it needs")]

pub mod gate;
pub mod provisioner;
pub mod qemu;
pub mod s3;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backup::actors::Pace;
use backup::adapters::shelf::{Making, SecretFile, Shelf};
use backup::ports::Doors;
use backup_repository::{DiskSource, EngineSettings, KdfCost, RawFile, SourceError, StoreSettings, StoreUrl};
use bus::memory::MemoryTransport;
use bus::{Bus, ServiceInfo, RunningServer};
use contract::operation::{Begun, OperationReport};
use contract::provisioner::DiskExport;
use contract::{HostName, OperationId, Realm, Service, VmName};
use operation::Operations;

pub use provisioner::FakeProvisioner;

pub const DEADLINE: Duration = Duration::from_secs(20);

pub fn host() -> HostName {
    HostName::new("h1").expect("a name")
}

pub fn vm(name: &str) -> VmName {
    VmName::new(name).expect("a name")
}

/// Doors whose socket is the raw image itself: what is behind a door does not matter to a saga.
pub struct RawDoors;

#[async_trait]
impl Doors for RawDoors {
    async fn reach(&self, door: &DiskExport) -> Result<Box<dyn DiskSource>, SourceError> {
        Ok(Box::new(RawFile::open(&door.socket)?))
    }
}

/// A shelf for a repository in a folder, cheap to open, quick to give up.
pub fn shelf(folder: &Path) -> Shelf {
    let key = folder.join("store.key");
    if !key.exists() {
        std::fs::write(&key, [7; 64]).expect("written");
    }
    Shelf {
        store: StoreSettings::new(StoreUrl::Folder(folder.join("store"))),
        secret: SecretFile::Key(key),
        engine: EngineSettings { memory_bytes_max: 0, ..EngineSettings::default() },
        making: Making::Allowed,
        kdf: KdfCost { memory_kib: 8, passes: 1, lanes: 1 },
        note: folder.join("repository.json"),
    }
}

/// Looks often, so that tests need not wait.
pub fn quick() -> Pace {
    Pace {
        between_looks: Duration::from_millis(200),
        back_off: Duration::from_millis(50),
        back_off_max: Duration::from_millis(200),
    }
}

/// A sparse raw image with some content that no two seeds share.
pub fn raw_image(path: &Path, seed: u64, bytes: usize) {
    let mut content = vec![0u8; bytes];
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for word in content[bytes / 4..bytes / 2].chunks_exact_mut(8) {
        // xorshift: content that does not compress or repeat.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    std::fs::write(path, content).expect("written");
}

/// The service with its actors, and the fake provisioner, on one memory bus.
pub struct Office {
    pub bus: Bus,
    pub provisioner: FakeProvisioner,
    pub operations: Operations,
    pub folder: PathBuf,
    /// Ours is the last.
    desks: Vec<Serving>,
}

impl Office {
    /// Opens both desks.
    pub async fn open(folder: &Path, shelf: Shelf, doors: Arc<dyn Doors>) -> Office {
        let bus = Bus::new(Arc::new(MemoryTransport::new()), Realm::default());
        let (provisioner, desk) = FakeProvisioner::open(&bus, folder).await;
        Office::beside(bus, provisioner, vec![desk], folder, shelf, doors).await
    }

    /// Opens the service's desk on a bus that has a provisioner.
    pub async fn beside(
        bus: Bus,
        provisioner: FakeProvisioner,
        mut desks: Vec<Serving>,
        folder: &Path,
        shelf: Shelf,
        doors: Arc<dyn Doors>,
    ) -> Office {
        let mut service = backup::build(bus.clone(), host(), shelf, quick(), doors);
        let mut server = bus.server(ServiceInfo {
            service: Service::Backup,
            version: "0.1.0".into(),
            metadata: Default::default(),
        });
        service.endpoints.take().expect("it has endpoints")(&mut server);
        let operations = service.operations.take().expect("it has operations");
        operations.serve(&mut server);
        desks.push(server.open().await.expect("opens"));
        Office { bus, provisioner, operations, folder: folder.into(), desks }
    }

    /// Ends our desk, as the end of a process does, and hands over the others.
    pub fn close_backup(mut self) -> Vec<Serving> {
        drop(self.desks.pop());
        self.desks
    }

    /// Waits until an operation has ended.
    pub async fn ended(&self, begun: &Begun) -> OperationReport {
        self.ended_id(begun.operation()).await
    }

    pub async fn ended_id(&self, id: &OperationId) -> OperationReport {
        let patience = Duration::from_secs(120);
        testkit::eventually_some(&format!("operation {id} ends"), patience, async || {
            let report = self.operations.find(id).await.expect("readable");
            report.filter(|report| report.state.is_final())
        })
        .await
    }

    /// Waits until an operation is in a step.
    pub async fn at_step(&self, begun: &Begun, step: &str) {
        testkit::eventually(&format!("{begun:?} is at {step}"), async || {
            let report = self.operations.find(begun.operation()).await.expect("readable");
            report.is_some_and(|report| report.step.as_deref() == Some(step))
        })
        .await;
    }
}
