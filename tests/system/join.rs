//! Hosts and people come to a bus that listens beyond loopback, and go; keys are replaced: while all run.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::prelude::*;
use bus::nats::{Trust, is_let_in};
use contract::Service;
use contract::scheduler::ListSchedules;
use contract::upgrade::ListServices;
use system_tests::{CALL_MAX, Installation, InstallationOptions, binary};
use testkit::{eventually, eventually_some};

/// A whole host comes up within it.
const UP_MAX: Duration = Duration::from_secs(90);

/// An installation whose bus other hosts reach.
async fn open_installation() -> Installation {
    let nats = "listen = \"0.0.0.0\"\nnames = [\"127.0.0.1\"]".to_string();
    Installation::start(InstallationOptions { nats, ..InstallationOptions::default() }).await
}

/// A host that is to join.
struct OtherHost {
    state: tempfile::TempDir,
    up: Option<Child>,
}

impl OtherHost {
    fn new() -> OtherHost {
        OtherHost { state: tempfile::Builder::new().prefix("loam-").tempdir().expect("a folder"), up: None }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.state.path().join(name)
    }

    fn loam(&self, arguments: &[&str]) -> Output {
        let mut loam = Command::new(binary("loam"));
        loam.arg("--state").arg(self.state.path()).args(arguments).stdin(Stdio::null());
        loam.output().expect("loam runs")
    }

    fn join(&self, token: &str) -> Output {
        self.loam(&["host", "join", token, "--json"])
    }

    fn start(&mut self) {
        let settings = self.file("loam.toml");
        std::fs::write(&settings, "[proxy]\nhttp_listen = \"127.0.0.1:0\"\n").expect("written");
        let log = std::fs::File::create(self.file("up.log")).expect("a log");
        let mut up = Command::new(binary("loam"));
        up.arg("--state").arg(self.state.path()).args(["up", "--hypervisor", "simulated", "--config"]);
        let up = up.arg(settings).stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        self.up = Some(up.spawn().expect("loam up starts"));
    }
}

impl Drop for OtherHost {
    fn drop(&mut self) {
        let Some(up) = &mut self.up else { return };
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(self.state.path().join("up.log")).unwrap_or_default());
        }
        // Its children end with it.
        drop(up.kill());
        drop(up.wait());
    }
}

fn text(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

fn token_of(installation: &Installation, arguments: &[&str]) -> String {
    let mut all = vec!["host", "add"];
    all.extend(arguments);
    installation.loam_json(&all)["token"].as_str().expect("a token").into()
}

fn seed(path: &Path) -> String {
    std::fs::read_to_string(path).expect("a key").trim().into()
}

async fn hosts_of(installation: &Installation, service: Service) -> Vec<String> {
    let mut hosts: Vec<String> = installation
        .ask(ListServices {})
        .await
        .into_iter()
        .filter(|running| running.health.service == service)
        .map(|running| running.host.to_string())
        .collect();
    hosts.sort();
    hosts
}

/// The token with another authority in it, as a person would get it who asks the wrong server.
fn with_other_authority(token: &str) -> String {
    let json =
        BASE64_URL_SAFE_NO_PAD.decode(token.strip_prefix("loam1.").expect("a token")).expect("base 64");
    let mut content: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    content["authority"] = "ab".repeat(32).into();
    format!("loam1.{}", BASE64_URL_SAFE_NO_PAD.encode(content.to_string()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_joins_by_a_token_runs_and_is_removed() {
    let installation = open_installation().await;
    let client = std::fs::read_to_string(installation.state().join("client.toml")).expect("written");
    let url = client.split('"').nth(1).expect("the url").to_string();
    assert!(url.starts_with("tls://127.0.0.1:"), "{url}");
    let operator = seed(&installation.state().join("keys/operator.nk"));
    is_let_in(&url.replace("tls:", "nats:"), &operator, &Trust::Any).await.expect_err("not without TLS");

    let token = token_of(&installation, &["h2"]);
    let mut host = OtherHost::new();
    let refused = host.join(&with_other_authority(&token));
    assert_eq!(refused.status.code(), Some(4), "{}", text(&refused));
    assert!(text(&refused).contains("not of the authority that the token names"), "{}", text(&refused));
    assert!(!host.file("join.toml").exists());

    for again in [false, true] {
        let joined = host.join(&token);
        assert!(joined.status.success(), "again: {again}: {}", text(&joined));
    }
    let used = OtherHost::new().join(&token);
    assert_eq!(used.status.code(), Some(3), "{}", text(&used));
    assert!(text(&used).contains("used already, with other keys"), "{}", text(&used));
    for (file, mode) in [("keys/provisioner.nk", 0o600), ("join.toml", 0o600), ("ca.pem", 0o644)] {
        let found = std::fs::metadata(host.file(file)).expect("there").permissions().mode() & 0o777;
        assert_eq!(found, mode, "{file}");
    }
    assert!(!host.file("ca.key").exists() && !host.file("keys/ca.key").exists());

    host.start();
    for service in Service::FIVE {
        eventually_some(&format!("{service} of both hosts is there"), UP_MAX, async || {
            (hosts_of(&installation, service).await == ["h1", "h2"]).then_some(())
        })
        .await;
    }

    let trust = Trust::AuthorityIn(installation.state().join("ca.pem"));
    let of_h2 = seed(&host.file("keys/provisioner.nk"));
    assert!(is_let_in(&url, &of_h2, &trust).await.expect("it answers"));
    installation.loam_json(&["host", "remove", "h2"]);
    assert!(!is_let_in(&url, &of_h2, &trust).await.expect("it answers"));
    for service in Service::FIVE {
        eventually("the removed host is gone", async || hosts_of(&installation, service).await == ["h1"])
            .await;
    }
    installation.ready().await;
    let late = host.join(&token);
    assert_eq!(late.status.code(), Some(3), "{}", text(&late));
    assert!(text(&late).contains("does not know the token"), "{}", text(&late));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_token_is_refused_and_a_host_gets_new_keys_by_a_new_one() {
    let installation = open_installation().await;
    let token = token_of(&installation, &["h2"]);
    let host = OtherHost::new();
    let file = installation.state().join("nats/hosts.toml");
    let hosts = std::fs::read_to_string(&file).expect("written");
    let year =
        hosts.split("expires = \"").nth(1).expect("a time").split('-').next().expect("a year").to_string();
    std::fs::write(&file, hosts.replace(&format!("expires = \"{year}"), "expires = \"2020"))
        .expect("written");
    let late = host.join(&token);
    assert_eq!(late.status.code(), Some(3), "{}", text(&late));
    assert!(text(&late).contains("older than an hour"), "{}", text(&late));

    assert!(host.join(&token_of(&installation, &["h2"])).status.success());
    let before = seed(&host.file("keys/backup.nk"));
    let twice = installation.loam(&["host", "add", "h2"]);
    assert_eq!(twice.status.code(), Some(3), "{}", text(&twice));
    let again = token_of(&installation, &["h2", "--again"]);
    let joined = host.loam(&["host", "join", &again, "--new-keys"]);
    assert!(joined.status.success(), "{}", text(&joined));
    let after = seed(&host.file("keys/backup.nk"));
    let client = std::fs::read_to_string(host.file("join.toml")).expect("written");
    let url = client.split('"').find(|part| part.starts_with("tls:")).expect("the url");
    let trust = Trust::AuthorityIn(host.file("ca.pem"));
    assert!(is_let_in(url, &after, &trust).await.expect("it answers"));
    assert!(!is_let_in(url, &before, &trust).await.expect("it answers"), "the old key is out");
}

#[tokio::test(flavor = "multi_thread")]
async fn people_come_and_go_and_keys_are_replaced_while_requests_go_on() {
    let installation = Installation::simulated().await;
    let (bus, stop) = (installation.bus().clone(), Arc::<AtomicBool>::default());
    let stopped = Arc::clone(&stop);
    let requests = tokio::spawn(async move {
        let mut answered = 0_u32;
        while !stopped.load(Ordering::Relaxed) {
            bus.call(&ListSchedules {}, CALL_MAX).await.expect("a request under way goes on");
            answered += 1;
        }
        answered
    });
    let client = std::fs::read_to_string(installation.state().join("client.toml")).expect("written");
    let url = client.split('"').nth(1).expect("the url").to_string();
    let is_in = async |seed: &str| is_let_in(&url, seed, &Trust::Any).await.expect("it answers");

    let key_file = installation.state().join("ada.nk");
    let file = key_file.display().to_string();
    installation.loam_json(&["person", "add", "ada", "--new-key", &file]);
    let ada = seed(&key_file);
    assert!(is_in(&ada).await);
    assert!(
        installation
            .loam_json(&["person", "list"])
            .as_object()
            .is_some_and(|people| people.contains_key("ada"))
    );
    installation.loam_json(&["person", "remove", "ada"]);
    assert!(!is_in(&ada).await);

    for service in [Service::Provisioner, Service::Backup, Service::Supervisor] {
        let file = installation.state().join(format!("keys/{service}.nk"));
        let before = seed(&file);
        installation.loam_json(&["keys", "rotate", service.name()]);
        let after = seed(&file);
        assert!(is_in(&after).await && !is_in(&before).await, "{service}");
    }
    stop.store(true, Ordering::Relaxed);
    assert!(requests.await.expect("no request failed") > 0);
    installation.ready().await;
}
