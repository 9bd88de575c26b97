//! A real S3 server (SeaweedFS) for one test.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use backup_repository::{EngineSettings, OpenError, Repository, S3Settings, Store, StoreSettings};
use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;

const BUCKET: &str = "backups";
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Where the machine is busy its parts may miss each other when they start; it then never answers.
const STARTS_MAX: usize = 3;

/// The server; it ends when this is dropped.
pub(crate) struct S3Server {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
    filer_port: u16,
}

/// The program `weed` in PATH, without which the test would show nothing.
fn weed() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("weed")).find(|file| file.is_file());
    found.expect("weed is missing in PATH: `deploy/packages test` installs it")
}

/// SeaweedFS takes a gRPC port 10000 above each port, so both must be free.
fn free_port() -> u16 {
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if port < 55_000 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}

impl S3Server {
    /// Starts a server with an empty bucket.
    pub(crate) async fn start() -> S3Server {
        let mut said = String::new();
        for _ in 0..STARTS_MAX {
            let server = S3Server::begin();
            if server.is_ready_in_time().await {
                return server;
            }
            said = std::fs::read_to_string(server.folder.path().join("log")).unwrap_or_default();
        }
        panic!("the S3 server did not start:\n{said}");
    }

    fn begin() -> S3Server {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        let config = r#"{"identities":[{"name":"t","credentials":[{"accessKey":"key","secretKey":"hush"}],
            "actions":["Admin","Read","Write","List","Tagging"]}]}"#;
        std::fs::write(folder.path().join("s3.json"), config).unwrap();
        write_secret(&folder.path().join("secret"), "hush\n");
        let (port, filer_port) = (free_port(), free_port());
        let mut command = Command::new(weed());
        command
            .current_dir(folder.path())
            .args(["server", "-ip", "127.0.0.1", "-ip.bind", "127.0.0.1", "-dir", "data", "-filer", "-s3"])
            .args(["-master.port", &free_port().to_string(), "-volume.port", &free_port().to_string()])
            .args(["-filer.port", &filer_port.to_string(), "-s3.port", &port.to_string()])
            .args(["-s3.port.iceberg", "0", "-s3.port.lance", "0", "-s3.config", "s3.json"])
            .args(["-volume.max", "10", "-master.volumeSizeLimitMB", "64"])
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap());
        let child = command.spawn().unwrap();
        S3Server { child, folder, port, filer_port }
    }

    /// The same, and the first write, for which the server makes its volumes in some seconds, is done.
    pub(crate) async fn start_and_warm_up() -> S3Server {
        let server = S3Server::start().await;
        super::new_repository(server.store("first")).await;
        server
    }

    /// The bucket is a folder of the filer; the server is ready when it says that nothing is in there.
    async fn is_ready_in_time(&self) -> bool {
        let give_up = Instant::now() + START_TIMEOUT;
        while Instant::now() < give_up {
            if self.make_bucket() {
                let found =
                    Repository::open(self.store("probe"), super::secret(), EngineSettings::default()).await;
                if matches!(found, Err(OpenError::NoRepository)) {
                    return true;
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        false
    }

    fn make_bucket(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.filer_port)) else {
            return false;
        };
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let asked = write!(stream, "POST /buckets/{BUCKET}/ HTTP/1.0\r\nContent-Length: 0\r\n\r\n");
        let mut answer = String::new();
        asked.is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && matches!(answer.split(' ').nth(1), Some("201" | "409"))
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The same settings, by way of another port.
    pub(crate) fn settings_by(&self, port: u16, prefix: &str) -> StoreSettings {
        let mut settings = self.settings(prefix);
        let endpoint = settings.s3.as_mut().map(|s3| &mut s3.endpoint);
        *endpoint.unwrap() = Some(format!("http://127.0.0.1:{port}"));
        settings
    }

    /// Settings for a place of its own in the bucket.
    pub(crate) fn settings(&self, prefix: &str) -> StoreSettings {
        let mut settings = StoreSettings::new(format!("s3://{BUCKET}/{prefix}").parse().unwrap());
        settings.s3 = Some(S3Settings {
            endpoint: Some(format!("http://127.0.0.1:{}", self.port)),
            region: "us-east-1".into(),
            access_key_id: "key".into(),
            secret_access_key_file: self.folder.path().join("secret"),
        });
        settings
    }

    /// The bucket itself, past all rules of ours.
    pub(crate) fn bucket(&self) -> impl ObjectStore + use<> {
        let builder = AmazonS3Builder::new().with_endpoint(format!("http://127.0.0.1:{}", self.port));
        let builder = builder.with_allow_http(true).with_bucket_name(BUCKET).with_region("us-east-1");
        builder.with_access_key_id("key").with_secret_access_key("hush").build().unwrap()
    }

    pub(crate) fn store(&self, prefix: &str) -> Store {
        self.settings(prefix).open_for_init().unwrap()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn write_secret(path: &Path, secret: &str) {
    let mut options = std::fs::OpenOptions::new();
    options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .unwrap()
        .write_all(secret.as_bytes())
        .unwrap();
}
