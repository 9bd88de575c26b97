//! The store is a real S3 server: backups go there and come back, and its absence is waited out.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use contract::Service;
use contract::health::CheckHealth;
use system_tests::{CALL_MAX, Installation, InstallationOptions};
use tempfile::TempDir;
use testkit::{eventually, eventually_some};

use crate::backup_restore::backups;
use crate::provision::create_web;

/// A SeaweedFS server with one user and one bucket, on loopback.
struct S3 {
    child: Child,
    folder: TempDir,
    ports: Vec<u16>,
}

const KEY: &str = "loam-test";
const SECRET: &str = "not-a-secret-outside-this-test";

impl S3 {
    async fn start() -> S3 {
        let folder = tempfile::tempdir().expect("a folder");
        let config = format!(
            r#"{{"identities":[{{"name":"loam","credentials":[{{"accessKey":"{KEY}","secretKey":"{SECRET}"}}],"actions":["Admin","Read","Write","List","Tagging"]}}]}}"#
        );
        fs::write(folder.path().join("s3.json"), config).expect("written");
        let ports = free_ports(4);
        let child = spawn(folder.path(), &ports);
        let s3 = S3 { child, folder, ports };
        s3.answers().await;
        s3
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[3])
    }

    async fn answers(&self) {
        let address = self.endpoint().replace("http://", "");
        eventually_some("the S3 server answers", Duration::from_secs(60), async || {
            let answer = system_tests::get(address.parse().expect("an address"), "s3", "/").await.ok()?;
            (answer.status == 403 || answer.status == 200).then_some(())
        })
        .await;
    }

    fn stop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    async fn start_again(&mut self) {
        self.child = spawn(self.folder.path(), &self.ports);
        self.answers().await;
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Ports that are free, and whose neighbours 10,000 above are too: the server takes those for itself.
fn free_ports(count: usize) -> Vec<u16> {
    let mut held = Vec::new();
    let mut ports = Vec::new();
    while ports.len() < count {
        let low = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let port = low.local_addr().expect("bound").port();
        if port < 55_000
            && let Ok(high) = TcpListener::bind(("127.0.0.1", port + 10_000))
        {
            ports.push(port);
            held.push(high);
        }
        held.push(low);
    }
    ports
}

fn spawn(folder: &Path, ports: &[u16]) -> Child {
    let data = folder.join("data");
    fs::create_dir_all(&data).expect("made");
    let log = fs::File::create(folder.join("weed.log")).expect("a log");
    Command::new("weed")
        .args(["server", "-ip", "127.0.0.1", "-ip.bind", "127.0.0.1", "-dir"])
        .arg(&data)
        .args(["-master.port", &ports[0].to_string(), "-volume.port", &ports[1].to_string()])
        .args(["-filer", "-filer.port", &ports[2].to_string(), "-s3", "-s3.port", &ports[3].to_string()])
        .args(["-s3.port.iceberg", "0", "-s3.port.lance", "0", "-volume.max", "20"])
        .args(["-master.volumeSizeLimitMB", "64", "-s3.config"])
        .arg(folder.join("s3.json"))
        .env("TMPDIR", folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("weed is in PATH; tests/run installs it")
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_go_to_s3_and_its_absence_is_reported_and_waited_out() {
    let mut s3 = S3::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("s3.secret");
    fs::write(&secret, SECRET).expect("written");
    fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).expect("ours");
    make_bucket(&s3).await;
    let settings = format!(
        "[backup]\nstore = \"s3://loam/test\"\ncreate_repository = true\n[backup.s3]\nendpoint = \"{}\"\n\
         access_key_id = \"{KEY}\"\nsecret_access_key_file = \"{}\"\n",
        s3.endpoint(),
        secret.display()
    );
    let installation =
        Installation::start(InstallationOptions { settings, ..InstallationOptions::default() }).await;
    create_web(&installation).await;
    installation.loam_json(&["backup", "run", "web"]);
    installation.loam_json(&["backup", "restore", "web@latest", "--as", "web2"]);
    assert_eq!(backups(&installation).await.len(), 1);

    s3.stop();
    let output = installation.loam(&["backup", "run", "web"]);
    assert_ne!(output.status.code(), Some(0), "{output:?}");
    eventually("its health names the store", async || {
        let health = installation.bus().call_at(Service::Backup, &CheckHealth {}, CALL_MAX).await;
        health.is_ok_and(|health| {
            health.parts.iter().any(|part| part.part == "store" && part.problem.is_some())
        })
    })
    .await;

    s3.start_again().await;
    eventually_some("a backup succeeds again, without a restart", Duration::from_secs(120), async || {
        installation.loam(&["backup", "run", "web"]).status.success().then_some(())
    })
    .await;
}

/// Makes the bucket through the filer, which keeps each bucket as a folder.
async fn make_bucket(s3: &S3) {
    let filer = format!("127.0.0.1:{}", s3.ports[2]).parse().expect("an address");
    eventually_some("the bucket is made", Duration::from_secs(60), async || {
        let answer = system_tests::post(filer, "filer", "/buckets/loam/", "").await.ok()?;
        (answer.status == 201 || answer.status == 200).then_some(())
    })
    .await;
}
