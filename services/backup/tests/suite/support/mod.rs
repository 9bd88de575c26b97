//! What the tests of the backup service share: a fake provisioner that keeps the contract, a repository in a folder, and
//! the service with real actors on the memory bus.

pub mod gate;
pub mod provisioner;
pub mod qemu;
pub mod s3;

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backup::adapters::repository::{RepositoryConfig, RepositoryCreation, SecretFile};
use backup::ports::DiskExportConnector;
use backup_repository::{
    CollectSettings, DiskSource, EngineSettings, KdfCost, RawFile, S3Settings, SourceError, StoreSettings,
    StoreUrl,
};
use bus::memory::MemoryTransport;
use bus::{Bus, RunningServer, ServiceInfo};
use contract::backup::ListBackups;
use contract::operation::{BegunOperation, OperationReport};
use contract::provisioner::DiskExport;
use contract::{HostName, OperationId, Realm, Service, VmName};
use operation::Engine;

pub use provisioner::FakeProvisioner;
use s3::TinyS3;

pub const DEADLINE: Duration = Duration::from_secs(20);

pub fn host() -> HostName {
    HostName::new("h1").expect("a valid name")
}

pub fn other_host() -> HostName {
    HostName::new("h2").expect("a valid name")
}

pub fn vm(name: &str) -> VmName {
    VmName::new(name).expect("a valid name")
}

/// Exports whose socket is the raw image itself: what serves an export does not matter to a saga.
pub struct RawExports;

#[async_trait]
impl DiskExportConnector for RawExports {
    async fn connect(
        &self,
        _: &OperationId,
        export: &DiskExport,
    ) -> Result<Box<dyn DiskSource>, SourceError> {
        Ok(Box::new(RawFile::open(&export.socket)?))
    }
}

/// A repository in a folder, cheap to open, checked often, collected at once.
pub fn repository_config(folder: &Path) -> RepositoryConfig {
    let key = folder.join("store.key");
    if !key.exists() {
        std::fs::write(&key, [7; 64]).expect("the file is written");
    }
    RepositoryConfig {
        store: StoreSettings::new(StoreUrl::Folder(folder.join("store"))),
        secret: SecretFile::Key(key),
        engine: EngineSettings { memory_bytes_max: 0, ..EngineSettings::default() },
        creation: RepositoryCreation::Allowed,
        kdf: KdfCost { memory_kib: 8, passes: 1, lanes: 1 },
        collect_settings: CollectSettings { pack_age_min: Duration::ZERO, ..CollectSettings::default() },
        refresh_interval: Duration::from_millis(200),
        last_opened_file: folder.join("repository.json"),
    }
}

/// A repository in S3 that is given up quickly.
pub fn s3_config(folder: &Path, server: &TinyS3) -> RepositoryConfig {
    let secret = folder.join("s3.secret");
    let mut options = std::fs::OpenOptions::new();
    let mut file =
        options.write(true).create_new(true).mode(0o600).open(&secret).expect("the folder is created");
    file.write_all(b"hush").expect("the file is written");
    let mut config = repository_config(folder);
    config.store.url = "s3://backups/loam".parse().expect("a valid URL");
    config.store.s3 = Some(S3Settings {
        endpoint: Some(server.endpoint()),
        region: "us-east-1".into(),
        access_key_id: "loam".into(),
        secret_access_key_file: secret,
    });
    config.store.retries_max = 1;
    config.store.retry_timeout = Duration::from_secs(2);
    config
}

/// A sparse raw image with some content that no two seeds share.
pub fn raw_image(path: &Path, seed: u64, bytes: usize) {
    let mut content = vec![0u8; bytes];
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for chunk in content[bytes / 4..bytes / 2].chunks_exact_mut(8) {
        // xorshift: content that does not compress or repeat.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes());
    }
    std::fs::write(path, content).expect("the file is written");
}

/// The service with its actors, and the fake provisioner, on one memory bus.
pub struct TestService {
    pub bus: Bus,
    pub provisioner: FakeProvisioner,
    pub engine: Engine,
    pub folder: PathBuf,
    running: chassis::StartedService,
    /// Ours is the last.
    servers: Vec<RunningServer>,
}

impl TestService {
    /// Opens the service and the provisioner.
    pub async fn open(
        folder: &Path,
        config: RepositoryConfig,
        exports: Arc<dyn DiskExportConnector>,
    ) -> TestService {
        let bus = Bus::new(Arc::new(MemoryTransport::new()), Realm::default());
        let (provisioner, server) = FakeProvisioner::open(&bus, folder).await;
        TestService::beside(bus, provisioner, vec![server], folder, config, exports).await
    }

    /// Opens the service on a bus that has a provisioner.
    pub async fn beside(
        bus: Bus,
        provisioner: FakeProvisioner,
        servers: Vec<RunningServer>,
        folder: &Path,
        config: RepositoryConfig,
        exports: Arc<dyn DiskExportConnector>,
    ) -> TestService {
        TestService::on_host(host(), bus, provisioner, servers, folder, config, exports).await
    }

    /// Opens the service of a host on a bus that has provisioners.
    pub async fn on_host(
        host: HostName,
        bus: Bus,
        provisioner: FakeProvisioner,
        mut servers: Vec<RunningServer>,
        folder: &Path,
        config: RepositoryConfig,
        exports: Arc<dyn DiskExportConnector>,
    ) -> TestService {
        let service = backup::open(bus.clone(), host, config, exports);
        let mut server = bus.server(ServiceInfo {
            service: Service::Backup,
            version: "0.1.0".into(),
            metadata: Default::default(),
        });
        let running = service.serve(&mut server);
        let engine = running.engine.clone().expect("the service has operations");
        servers.push(server.open().await.expect("the endpoints open"));
        TestService { bus, provisioner, engine, folder: folder.into(), running, servers }
    }

    /// Ends the service, as the end of a process does, and hands over the other servers.
    pub async fn close(mut self) -> Vec<RunningServer> {
        drop(self.servers.pop());
        self.running.shut_down().await;
        self.servers
    }

    /// Waits until the repository is open; commands before that fail as unavailable.
    pub async fn ready(&self) {
        testkit::eventually("the repository is open", async || {
            self.bus.call(&ListBackups::default(), DEADLINE).await.is_ok()
        })
        .await;
    }

    /// Waits until an operation has ended.
    pub async fn ended(&self, begun: &BegunOperation) -> OperationReport {
        self.ended_id(begun.operation()).await
    }

    pub async fn ended_id(&self, id: &OperationId) -> OperationReport {
        let timeout = Duration::from_secs(120);
        testkit::eventually_some(&format!("operation {id} ends"), timeout, async || {
            let report = self.engine.find(id).await.expect("the table can be read");
            report.filter(|report| report.state.is_final())
        })
        .await
    }

    /// Waits until an operation is in a step.
    pub async fn at_step(&self, begun: &BegunOperation, step: &str) {
        testkit::eventually(&format!("{begun:?} is at {step}"), async || {
            let report = self.engine.find(begun.operation()).await.expect("the table can be read");
            report.is_some_and(|report| report.step.as_deref() == Some(step))
        })
        .await;
    }
}

/// All files below a folder, with their sizes in bytes.
pub fn files_under(folder: &Path) -> Vec<(u64, PathBuf)> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the folder can be read") {
            let entry = entry.expect("the entry can be read");
            let metadata = entry.metadata().expect("the file exists");
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                found.push((metadata.len(), entry.path()));
            }
        }
    }
    found
}
