//! Services are upgraded by signed builds, and the old build comes back when the new one does not work.

use std::fs;
use std::path::{Path, PathBuf};

use contract::Service;
use contract::health::CheckHealth;
use contract::supervisor::BuildPutBack;
use contract::upgrade::ListServices;
use futures::StreamExt;
use system_tests::{Installation, binary};
use testkit::eventually;

/// A release of a service: its present executable with something appended, so that the build is another.
fn release(installation: &Installation, folder: &str, executable: &Path, key: &Path) -> PathBuf {
    let folder = installation.state().join(folder);
    fs::create_dir_all(&folder).expect("made");
    fs::copy(executable, folder.join("loam-scheduler")).expect("copied");
    sign(installation, &folder, key);
    folder
}

/// The version of every executable here.
const VERSION: &str = env!("CARGO_PKG_VERSION");

fn sign(installation: &Installation, folder: &Path, key: &Path) {
    sign_as(installation, folder, key, VERSION);
}

fn sign_as(installation: &Installation, folder: &Path, key: &Path, version: &str) {
    let (folder, key) = (folder.display().to_string(), key.display().to_string());
    let output = installation.loam(&[
        "release",
        "sign",
        &folder,
        "--service",
        "scheduler",
        "--version",
        version,
        "--key-file",
        &key,
    ]);
    assert!(output.status.success(), "{output:?}");
}

/// A key pair; the public half is trusted.
fn trusted_key(installation: &Installation) -> PathBuf {
    let made = installation.state().join("signing");
    let output = installation.loam(&["release", "keygen", "--out", &made.display().to_string()]);
    assert!(output.status.success(), "{output:?}");
    let find = |extension: &str| {
        let entries = fs::read_dir(&made).expect("readable").flatten().map(|entry| entry.path());
        entries.into_iter().find(|path| path.extension().is_some_and(|e| e == extension)).expect("made")
    };
    let trusted = installation.state().join("keys").join("release").join("test.pub");
    fs::copy(find("pub"), trusted).expect("trusted");
    find("key")
}

/// The scheduler's executable, made another build by bytes after its end, which an ELF loader ignores.
fn newer_build(installation: &Installation) -> PathBuf {
    let path = installation.state().join("newer-scheduler");
    let mut bytes = fs::read(binary("loam-scheduler")).expect("readable");
    bytes.extend(b"another build");
    fs::write(&path, bytes).expect("written");
    path
}

async fn build(installation: &Installation) -> String {
    let health =
        installation.bus().call_at(Service::Scheduler, &CheckHealth {}, system_tests::CALL_MAX).await;
    health.expect("the scheduler answers").build
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_every_running_service_with_its_version_and_build() {
    let installation = Installation::simulated().await;
    let found = installation.ask(ListServices {}).await;
    for service in Service::FIVE {
        let row = found.iter().find(|row| row.health.service == service);
        let row = row.unwrap_or_else(|| panic!("{service} was not found: {found:?}"));
        assert_eq!((row.health.version.as_str(), row.health.build.len()), (VERSION, 16));
    }
    installation.loam_json(&["upgrade", "status"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_build_takes_over_and_stays_over_a_restart() {
    let mut installation = Installation::simulated().await;
    let key = trusted_key(&installation);
    let before = build(&installation).await;
    let folder = release(&installation, "release", &newer_build(&installation), &key);
    installation.loam_json(&["upgrade", "apply", &folder.display().to_string()]);
    let after = build(&installation).await;
    assert_ne!(after, before);
    assert!(installation.end().await.success());
    installation.restart().await;
    assert_eq!(build(&installation).await, after);

    let rolled_back = installation.loam_json(&["upgrade", "rollback", "scheduler"]);
    assert_eq!(rolled_back["output"]["build"], before);
    assert_eq!(build(&installation).await, before);
    let output = installation.loam(&["upgrade", "rollback", "scheduler"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("no build of scheduler before"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_keeps_dying_after_its_upgrade_is_put_back_and_people_see_it() {
    let installation = Installation::simulated().await;
    let key = trusted_key(&installation);
    let before = build(&installation).await;
    let folder = release(&installation, "release", &newer_build(&installation), &key);
    installation.loam_json(&["upgrade", "apply", &folder.display().to_string()]);
    let upgraded = build(&installation).await;
    let mut events = installation.bus().subscribe::<BuildPutBack>().await.expect("subscribed");
    for _ in 0..3 {
        installation.kill(Service::Scheduler).await;
    }
    let event = tokio::time::timeout(system_tests::CALL_MAX, events.next()).await.expect("published in time");
    let (event, _) = event.expect("published");
    assert_eq!((&event.service, &event.build, &event.build_now), (&Service::Scheduler, &upgraded, &before));
    installation.ready().await;
    assert_eq!(build(&installation).await, before);
    let status = String::from_utf8(installation.loam(&["status"]).stdout).expect("text");
    let notice = format!("build {before} was put back");
    assert!(status.contains(&notice) && status.contains("SIGKILL"), "{status}");
    eventually("the status view says so, too", async || {
        fs::read_to_string(installation.state().join("up.log")).is_ok_and(|text| text.contains(&notice))
    })
    .await;

    // A service that was not upgraded is restarted for ever, as ever.
    let proxy = installation.process(Service::Proxy).await.executable;
    for _ in 0..4 {
        installation.kill(Service::Proxy).await;
    }
    assert_eq!(installation.process(Service::Proxy).await.executable, proxy);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_not_the_signed_one_is_rolled_back_and_an_older_one_needs_a_reason() {
    let installation = Installation::simulated().await;
    let key = trusted_key(&installation);
    let before = build(&installation).await;
    let folder = release(&installation, "release", &newer_build(&installation), &key);
    let folder_text = folder.display().to_string();
    sign_as(&installation, &folder, &key, "0.0.1");
    let refused = installation.loam(&["upgrade", "apply", &folder_text]);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--allow-downgrade"), "{refused:?}");
    // Neither with a reason is it what its manifest says.
    let lied = installation.loam(&["upgrade", "apply", &folder_text, "--allow-downgrade", "a test"]);
    assert_eq!(lied.status.code(), Some(1), "{lied:?}");
    assert!(String::from_utf8_lossy(&lied.stderr).contains("its signed manifest says 0.0.1"), "{lied:?}");
    assert_eq!(build(&installation).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_does_not_work_is_replaced_by_the_old_one() {
    let installation = Installation::simulated().await;
    let key = trusted_key(&installation);
    let before = build(&installation).await;
    // Coreutils' `false` ends at once, as a build with a defect may.
    let broken = Path::new("/bin/false");
    let folder = release(&installation, "broken", broken, &key);
    let output = installation.loam(&["upgrade", "apply", &folder.display().to_string()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(build(&installation).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn unsigned_altered_and_foreign_releases_are_refused_and_nothing_changes() {
    let installation = Installation::simulated().await;
    let key = trusted_key(&installation);
    let newer = newer_build(&installation);
    let before = (build(&installation).await, installation.process(Service::Scheduler).await.pid);

    let unsigned = release(&installation, "unsigned", &newer, &key);
    fs::remove_file(unsigned.join("release.toml.minisig")).expect("there");
    let altered = release(&installation, "altered", &newer, &key);
    fs::write(altered.join("loam-scheduler"), b"something else").expect("written");
    let rewritten = release(&installation, "rewritten", &newer, &key);
    let manifest =
        fs::read_to_string(rewritten.join("release.toml")).expect("there").replace(VERSION, "0.3.0");
    fs::write(rewritten.join("release.toml"), manifest).expect("written");
    let foreign_key = installation.state().join("foreign");
    let output = installation.loam(&["release", "keygen", "--out", &foreign_key.display().to_string()]);
    assert!(output.status.success());
    let foreign_key = fs::read_dir(&foreign_key).expect("readable").flatten().map(|entry| entry.path());
    let foreign_key =
        foreign_key.into_iter().find(|path| path.extension().is_some_and(|e| e == "key")).expect("made");
    let foreign = release(&installation, "foreign-release", &newer, &foreign_key);

    for (folder, reason) in
        [(unsigned, "signed"), (altered, "altered"), (rewritten, "trusted"), (foreign, "trusted")]
    {
        let output = installation.loam(&["upgrade", "apply", &folder.display().to_string()]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{stderr}");
        assert!(stderr.contains(reason), "{stderr}");
    }
    assert_eq!((build(&installation).await, installation.process(Service::Scheduler).await.pid), before);
}
