//! What the upgrade service promises, with real files and real actors, on the memory bus under a fake supervisor.

mod support;

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bus::{CallError, Destination};
use chassis::sha256_of;
use contract::operation::{BegunOperation, CancelOperation, OperationReport, OperationState};
use contract::supervisor::ReplaceService;
use contract::upgrade::{
    ApplyRelease, ApplyReleaseRefused, ListServices, RollBackService, RollBackServiceRefused,
};
use contract::{OperationId, Service};
use minisign::KeyPair;
use operation::{Context, Saga, new_id, wait_for_operation};
use saga::harness::check;
use saga::{FencedError, Journal, Runtime, SagaOutcome, StepError, StepFuture, drive};
use support::{Host, build_of, manifest, service_info};
use testkit::eventually;
use upgrade::UpgradeContext;
use upgrade::release_dir::ReleaseDir;
use upgrade::sagas::UpgradedService;

const CALL_MAX: Duration = Duration::from_secs(20);
const WAIT_MAX: Duration = Duration::from_secs(60);

async fn apply(
    host: &Host,
    folder: &Path,
    id: Option<&OperationId>,
) -> Result<BegunOperation, CallError<ApplyReleaseRefused>> {
    let command = ApplyRelease { folder: folder.into(), allow_downgrade: None, operation_id: id.cloned() };
    host.bus.call(&command, CALL_MAX).await
}

async fn outcome(host: &Host, id: &OperationId) -> OperationReport {
    wait_for_operation(&host.bus, Service::Upgrade, id, WAIT_MAX, |_| {}).await.expect("it ends")
}

async fn applied(host: &Host, folder: &Path) -> OperationReport {
    let begun = apply(host, folder, None).await.expect("begun");
    outcome(host, begun.operation()).await
}

/// A release is refused, and nothing changed.
async fn refused(host: &Host, folder: &Path) -> ApplyReleaseRefused {
    let refusal = match apply(host, folder, None).await {
        Err(CallError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(host.supervisor.runs(), host.installed());
    assert_eq!((host.supervisor.started(), host.builds().len(), host.received()), (1, 0, 0));
    refusal
}

#[actix::test]
async fn a_signed_release_replaces_the_service_and_only_two_builds_stay_on_the_disk() {
    let host = Host::new().await;
    let _upgrade = host.upgrade(10, 0).await;
    let mut before = build_of(&host.installed());
    for round in ["one", "two", "three"] {
        let folder = host.release(round, &format!("healthy: {round}"));
        let build = build_of(&folder.join("loam-proxy"));
        let report = applied(&host, &folder).await;
        assert_eq!(report.state, OperationState::Done, "{:?}", report.reason);
        let applied = what_was_applied(&report);
        assert_eq!(
            (applied.service, &applied.build, applied.build_before),
            (Service::Proxy, &build, Some(before))
        );
        let place = host.state().join("releases/proxy").join(&build).join("loam-proxy");
        assert_eq!(host.supervisor.runs(), place);
        before = build;
    }
    assert_eq!(host.builds().len(), 2);
}

fn what_was_applied(report: &OperationReport) -> UpgradedService {
    let output = report.output.clone().expect("an output");
    serde::Deserialize::deserialize(output).expect("what was applied")
}

#[actix::test]
async fn an_unsigned_release_is_refused() {
    let host = Host::new().await;
    let _upgrade = host.upgrade(10, 0).await;
    let folder = host.release("new", "healthy: new");
    std::fs::remove_file(folder.join("release.toml.minisig")).expect("removed");
    assert!(matches!(refused(&host, &folder).await, ApplyReleaseRefused::Unsigned(_)));
}

#[actix::test]
async fn an_altered_release_is_refused() {
    let host = Host::new().await;
    let _upgrade = host.upgrade(10, 0).await;
    let folder = host.release("new", "healthy: new");
    std::fs::write(folder.join("loam-proxy"), "healthy: mine").expect("written");
    let refusal = refused(&host, &folder).await;
    assert!(
        matches!(&refusal, ApplyReleaseRefused::ExecutableAltered { file, .. } if file == "loam-proxy"),
        "{refusal:?}"
    );

    let digest = sha256_of(&folder.join("loam-proxy")).expect("readable");
    std::fs::write(folder.join("release.toml"), manifest("proxy", "loam-proxy", &digest)).expect("written");
    assert!(matches!(refused(&host, &folder).await, ApplyReleaseRefused::Untrusted(_)));
}

#[actix::test]
async fn a_release_signed_by_a_stranger_is_refused() {
    let host = Host::new().await;
    let _upgrade = host.upgrade(10, 0).await;
    let folder = host.release("new", "healthy: new");
    let text = std::fs::read_to_string(folder.join("release.toml")).expect("readable");
    let stranger = KeyPair::generate_unencrypted_keypair().expect("made");
    host.sign(&folder, &text, &stranger);
    assert!(matches!(refused(&host, &folder).await, ApplyReleaseRefused::Untrusted(_)));
    host.trust("theirs.pub", &stranger);
    assert_eq!(applied(&host, &folder).await.state, OperationState::Done);
}

#[actix::test]
async fn without_a_key_or_with_keys_that_others_can_write_nothing_is_trusted() {
    let host = Host::new().await;
    let _upgrade = host.upgrade(10, 0).await;
    let folder = host.release("new", "healthy: new");
    let key = host.keys().join("ours.pub");
    for (path, fine) in [(key.clone(), 0o644), (host.keys(), 0o755)] {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(fine | 0o022)).expect("set");
        let refusal = refused(&host, &folder).await;
        assert!(refusal.to_string().contains("can be written by others"), "{refusal}");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(fine)).expect("set");
    }
    std::fs::remove_file(key).expect("removed");
    assert!(refused(&host, &folder).await.to_string().contains("no key is trusted here"));
    std::fs::remove_dir(host.keys()).expect("removed");
    assert!(refused(&host, &folder).await.to_string().contains("no key is trusted here"));
}

#[actix::test]
async fn services_that_are_unknown_or_not_replaceable_are_refused() {
    let host = Host::new().await;
    let _upgrade = host.upgrade(10, 0).await;
    let folder = host.release("new", "healthy: new");
    let digest = sha256_of(&folder.join("loam-proxy")).expect("readable");
    for (service, not) in [("upgrade", Service::Upgrade), ("supervisor", Service::Supervisor)] {
        host.sign(&folder, &manifest(service, "loam-proxy", &digest), &host.signer);
        assert_eq!(refused(&host, &folder).await, ApplyReleaseRefused::NotReplaceable(not));
    }
    host.sign(&folder, &manifest("kernel", "loam-proxy", &digest), &host.signer);
    assert!(matches!(refused(&host, &folder).await, ApplyReleaseRefused::UnreadableRelease(_)));
}

#[actix::test]
async fn a_release_of_a_service_that_does_not_run_here_changes_nothing() {
    let host = Host::new().await;
    let _upgrade = host.upgrade(10, 0).await;
    let folder = host.release("new", "healthy: new");
    let digest = sha256_of(&folder.join("loam-proxy")).expect("readable");
    host.sign(&folder, &manifest("backup", "loam-proxy", &digest), &host.signer);
    let report = applied(&host, &folder).await;
    assert_eq!(report.state, OperationState::Undone);
    assert_eq!(report.reason.as_deref(), Some("inspect: the supervisor of this host does not run backup"));
    assert!(!host.state().join("releases/backup").join(&digest[..16]).exists());
}

#[actix::test]
async fn path_tricks_are_refused() {
    let host = Host::new().await;
    let _upgrade = host.upgrade(10, 0).await;
    let folder = host.release("new", "healthy: new");
    let digest = sha256_of(&folder.join("loam-proxy")).expect("readable");
    let unreadable = async |folder: &Path, why: &str| match refused(&host, folder).await {
        ApplyReleaseRefused::UnreadableRelease(reason) => assert!(reason.contains(why), "{reason}"),
        other => panic!("{other:?}"),
    };
    unreadable(Path::new("new"), "absolute path").await;
    unreadable(Path::new("/nowhere"), "No such file").await;
    for file in ["../loam-proxy", "/bin/sh", ".."] {
        host.sign(&folder, &manifest("proxy", file, &digest), &host.signer);
        unreadable(&folder, "plain file name").await;
    }
    symlink(host.installed(), folder.join("link")).expect("linked");
    let digest_of_old = sha256_of(&host.installed()).expect("readable");
    host.sign(&folder, &manifest("proxy", "link", &digest_of_old), &host.signer);
    unreadable(&folder, "link").await;
    nix::unistd::mkfifo(&folder.join("pipe"), nix::sys::stat::Mode::S_IRUSR).expect("made");
    host.sign(&folder, &manifest("proxy", "pipe", &digest), &host.signer);
    unreadable(&folder, "not a plain file").await;
}

#[actix::test]
async fn a_build_that_never_becomes_healthy_is_rolled_back() {
    for (behaviour, why) in [
        ("silent", "does not answer"),
        ("unhealthy", "the address is in use"),
        ("dies", "another instance answers"),
        ("healthy: version 0.1.9", "it reports version 0.1.9, its signed manifest says 0.2.0"),
    ] {
        let host = Host::new().await;
        let _upgrade = host.upgrade(1, 5).await;
        let report = applied(&host, &host.release("new", behaviour)).await;
        assert_eq!(report.state, OperationState::Undone, "{behaviour}");
        let reason = report.reason.expect("a reason");
        assert!(reason.starts_with("await_healthy: ") && reason.contains(why), "{reason}");
        assert_eq!(host.supervisor.runs(), host.installed());
        assert_eq!(host.builds(), Vec::<String>::new());
        let services = host.bus.call(&ListServices {}, CALL_MAX).await.expect("listed");
        let proxy = services.iter().find(|found| found.health.service == Service::Proxy).expect("it answers");
        assert_eq!(proxy.health.build, build_of(&host.installed()));
    }
}

#[actix::test]
async fn changes_to_the_folder_after_the_answer_do_not_matter() {
    let host = Host::new().await;
    let _upgrade = host.upgrade(10, 1).await;
    let folder = host.release("new", "healthy: new");
    let build = build_of(&folder.join("loam-proxy"));
    let begun = apply(&host, &folder, None).await.expect("begun");
    std::fs::write(folder.join("loam-proxy"), "dies: mine").expect("written");
    let report = outcome(&host, begun.operation()).await;
    assert_eq!(report.state, OperationState::Done, "{:?}", report.reason);
    assert_eq!(what_was_applied(&report).build, build);
    assert_eq!(std::fs::read_to_string(host.supervisor.runs()).expect("readable"), "healthy: new");
}

#[actix::test]
async fn one_upgrade_at_a_time_and_a_cancelled_one_is_undone() {
    let host = Host::new().await;
    let _upgrade = host.upgrade(600, 0).await;
    let first = apply(&host, &host.release("new", "silent"), None).await.expect("begun");
    let first = first.operation().clone();
    eventually("the new one is started", async || host.supervisor.started() == 2).await;
    let second = apply(&host, &host.release("other", "healthy: other"), None).await;
    assert!(
        matches!(&second, Err(CallError::Refused(ApplyReleaseRefused::UnderWay(id))) if *id == first),
        "{second:?}"
    );
    let cancel = CancelOperation { id: first.clone() };
    host.bus.call_at(Service::Upgrade, &cancel, CALL_MAX).await.expect("understood");
    assert_eq!(outcome(&host, &first).await.state, OperationState::Undone);
    assert_eq!(host.supervisor.runs(), host.installed());
}

#[actix::test]
async fn the_same_id_is_the_same_upgrade_even_when_its_folder_is_gone() {
    let host = Host::new().await;
    let _upgrade = host.upgrade(10, 0).await;
    let (folder, id) = (host.release("new", "healthy: new"), new_id());
    assert_eq!(apply(&host, &folder, Some(&id)).await.expect("begun"), BegunOperation::Begun(id.clone()));
    assert_eq!(outcome(&host, &id).await.state, OperationState::Done);
    std::fs::remove_dir_all(&folder).expect("removed");
    assert_eq!(
        apply(&host, &folder, Some(&id)).await.expect("known"),
        BegunOperation::AlreadyBegun(id.clone())
    );
    let other = apply(&host, &host.release("other", "healthy: other"), Some(&id)).await;
    assert!(matches!(other, Err(CallError::Refused(ApplyReleaseRefused::IdReused(_)))), "{other:?}");
    assert_eq!(host.supervisor.started(), 2);
}

#[actix::test]
async fn every_service_found_is_listed_also_one_that_does_not_answer() {
    let host = Host::new().await;
    let _upgrade = host.upgrade(10, 0).await;
    let silent = host.bus.server(service_info(Service::Backup, "backup-build"));
    let _silent = silent.open().await.expect("the memory bus opens servers");
    let services = host.bus.call(&ListServices {}, CALL_MAX).await.expect("listed");
    let names: Vec<Service> = services.iter().map(|found| found.health.service).collect();
    assert_eq!(names, [Service::Backup, Service::Proxy, Service::Upgrade, Service::Supervisor]);
    assert!(services[1].health.is_healthy());
    assert!(!services[0].health.is_healthy());
    assert_eq!((services[0].health.build.as_str(), services[0].host.as_str()), ("backup-build", "h1"));
}

#[actix::test]
async fn no_version_below_the_highest_that_was_ever_committed_comes_back_without_a_reason() {
    let host = Host::new().await;
    let upgrade = host.upgrade(10, 0).await;
    let version = |text: &str| host.release_as(text, &format!("healthy: version {text}"), text);
    for committed in ["0.3.0", "0.10.0"] {
        assert_eq!(applied(&host, &version(committed)).await.state, OperationState::Done);
    }
    let downgrade = async |reason: Option<&str>| {
        let allow_downgrade = reason.map(str::to_string);
        let command = ApplyRelease { folder: version("0.9.0"), allow_downgrade, operation_id: None };
        host.bus.call(&command, CALL_MAX).await
    };
    let refused = async |reason: Option<&str>| {
        let answer = downgrade(reason).await;
        let Err(CallError::Refused(ApplyReleaseRefused::Downgrade { highest, .. })) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!((highest.as_str(), host.received()), ("0.10.0", 0));
    };
    refused(None).await;
    refused(Some(" ")).await;
    let record = host.state().join("releases/proxy/committed.toml");
    assert!(std::fs::read_to_string(&record).expect("there").contains("0.10.0"));

    // A reason is enough, and is kept; the highest version stays what it was, whatever runs.
    let begun = downgrade(Some("0.10.0 loses requests")).await.expect("begun");
    let report = outcome(&host, begun.operation()).await;
    assert_eq!(what_was_applied(&report).downgrade_reason.as_deref(), Some("0.10.0 loses requests"));
    refused(None).await;
    // The operations know it where the record was deleted, also after a restart.
    std::fs::remove_file(&record).expect("removed");
    drop(upgrade);
    let _upgrade = host.upgrade(10, 0).await;
    refused(None).await;
    // A record that cannot be read refuses.
    std::fs::write(&record, "highest_version = 7").expect("written");
    let answer = apply(&host, &version("0.11.0"), None).await;
    assert!(matches!(answer, Err(CallError::Failed(_))), "{answer:?}");
    // A version of the same or a higher precedence needs no reason.
    std::fs::remove_file(&record).expect("removed");
    assert_eq!(applied(&host, &version("0.10.0")).await.state, OperationState::Done);
}

#[actix::test]
async fn what_runs_is_committed_however_it_was_installed() {
    let host = Host::new().await;
    let _upgrade = host.upgrade(10, 0).await;
    let folder = host.release_as("older", "healthy: version 0.0.9", "0.0.9");
    match refused(&host, &folder).await {
        ApplyReleaseRefused::Downgrade { highest, .. } => assert_eq!(highest, "0.1.0"),
        other => panic!("{other:?}"),
    }
}

async fn roll_back(host: &Host) -> Result<BegunOperation, CallError<RollBackServiceRefused>> {
    host.bus.call(&RollBackService { service: Service::Proxy, operation_id: None }, CALL_MAX).await
}

#[actix::test]
async fn a_service_goes_back_to_the_build_before_once_and_a_bad_one_before_is_left_again() {
    let host = Host::new().await;
    let _upgrade = host.upgrade(1, 0).await;
    let nothing = roll_back(&host).await;
    assert_eq!(host.received(), 0);
    assert!(
        matches!(nothing, Err(CallError::Refused(RollBackServiceRefused::NothingBefore(Service::Proxy)))),
        "{nothing:?}"
    );
    let folder = host.release("new", "healthy: new");
    assert_eq!(applied(&host, &folder).await.state, OperationState::Done);
    let begun = roll_back(&host).await.expect("begun");
    let report = outcome(&host, begun.operation()).await;
    assert_eq!(report.state, OperationState::Done, "{:?}", report.reason);
    let output = report.output.expect("an output");
    assert_eq!(
        (&output["build"], &output["version"]),
        (&build_of(&host.installed()).into(), &"0.1.0".into())
    );
    assert_eq!(host.supervisor.runs(), host.installed());
    assert!(roll_back(&host).await.is_err(), "it does not lead forward again");

    // What was left is not applied again by mistake; the build before may be bad, too.
    assert_eq!(applied(&host, &folder).await.state, OperationState::Done, "the same version is no older one");
    let runs = host.supervisor.runs();
    std::fs::write(host.installed(), "silent").expect("written");
    let begun = roll_back(&host).await.expect("begun");
    let report = outcome(&host, begun.operation()).await;
    assert_eq!(report.state, OperationState::Undone);
    assert_eq!(host.supervisor.runs(), runs);
}

#[actix::test]
async fn nothing_is_rolled_back_while_a_release_is_being_applied() {
    let host = Host::new().await;
    let _upgrade = host.upgrade(600, 0).await;
    let first = apply(&host, &host.release("new", "silent"), None).await.expect("begun");
    eventually("the new one is started", async || host.supervisor.started() == 2).await;
    let answer = roll_back(&host).await;
    assert!(
        matches!(&answer, Err(CallError::Refused(RollBackServiceRefused::UnderWay(id))) if id == first.operation()),
        "{answer:?}"
    );
}

#[actix::test]
async fn no_release_is_applied_while_a_service_is_rolled_back() {
    let host = Host::new().await;
    let _upgrade = host.upgrade(600, 0).await;
    let folder = host.release("new", "healthy: new");
    assert_eq!(applied(&host, &folder).await.state, OperationState::Done);
    std::fs::write(host.installed(), "silent").expect("written");
    let first = roll_back(&host).await.expect("begun");
    eventually("the one before is started", async || host.supervisor.started() == 3).await;
    let answer = apply(&host, &folder, None).await;
    assert!(
        matches!(&answer, Err(CallError::Refused(ApplyReleaseRefused::UnderWay(id))) if id == first.operation()),
        "{answer:?}"
    );
}

/// Keeps the journal when its process is killed, as a table does.
#[derive(Default)]
struct Kept(Journal);

impl Runtime for Kept {
    async fn record(&mut self, journal: &Journal) -> Result<(), FencedError> {
        self.0 = journal.clone();
        Ok(())
    }

    async fn pause(&mut self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    async fn within<'a>(
        &'a mut self,
        _: Duration,
        _: &'static str,
        work: StepFuture<'a>,
    ) -> Option<Result<serde_json::Value, StepError>> {
        Some(work.await)
    }

    fn is_cancelled(&self) -> bool {
        false
    }
}

#[actix::test]
async fn a_service_that_is_killed_again_and_again_gives_a_bad_build_no_more_time() {
    const LIFE: Duration = Duration::from_millis(600);
    let host = Host::new().await;
    let context = context_of(&host, "silent", Duration::from_secs(2));
    let (steps, mut kept) = (ApplyRelease::steps(), Kept::default());
    let mut lives = 0;
    let outcome = loop {
        lives += 1;
        assert!(lives < 50, "the bad build stays: {:?}", kept.0);
        let mut journal = kept.0.clone();
        let life = tokio::time::timeout(LIFE, drive(&steps, &context, &mut journal, &mut kept));
        if let Ok(ended) = life.await {
            break ended.expect("nobody else drives it");
        }
    };
    assert!(
        matches!(&outcome, SagaOutcome::Undone(reason) if reason.contains("not ready within 2 s")),
        "{outcome:?}"
    );
    assert_eq!(host.supervisor.runs(), host.installed());
}

/// The context of an upgrade whose release was received.
fn context_of(
    host: &Host,
    executable: &str,
    ready_within: Duration,
) -> Context<UpgradeContext, ApplyRelease> {
    let folder = host.release("new", executable);
    let context =
        context_with(host, ready_within, ApplyRelease { folder, allow_downgrade: None, operation_id: None });
    context.state.releases.receive(&context.id, &context.command.folder).expect("received");
    context
}

fn context_with<C>(host: &Host, ready_within: Duration, command: C) -> Context<UpgradeContext, C> {
    Context {
        state: Arc::new(UpgradeContext {
            bus: host.bus.clone(),
            host: support::host(),
            releases: ReleaseDir::in_state(&host.state()),
            ready_within,
            soak: Duration::ZERO,
        }),
        command,
        id: new_id(),
        scripts: Default::default(),
        progress: Default::default(),
        cancel: Default::default(),
    }
}

#[actix::test]
async fn whatever_step_the_process_dies_at_the_upgrade_ends_done_or_as_before() {
    let hosts: RefCell<HashMap<OperationId, (Arc<Host>, PathBuf)>> = RefCell::default();
    let fresh = async || {
        let test_host = Arc::new(Host::new().await);
        let context = context_of(&test_host, "healthy: new", Duration::from_secs(5));
        let build = build_of(&context.command.folder.join("loam-proxy"));
        let executable = test_host.state().join("releases/proxy").join(build).join("loam-proxy");
        hosts.borrow_mut().insert(context.id.clone(), (Arc::clone(&test_host), executable));
        context
    };
    let judge = async |context: &Context<UpgradeContext, ApplyRelease>, outcome: &SagaOutcome| {
        let (test_host, executable) = hosts.borrow_mut().remove(&context.id).expect("made before");
        let (runs, builds) = (test_host.supervisor.runs(), test_host.builds().len());
        let committed = context.state.releases.highest_committed(Service::Proxy).expect("readable");
        match (outcome, &committed) {
            (SagaOutcome::Done, Some(_)) if runs == executable && builds == 1 => Ok(()),
            (SagaOutcome::Undone(_), None) if runs == test_host.installed() && builds == 0 => Ok(()),
            other => Err(format!("{other:?}: {} runs, {builds} builds on the disk", runs.display())),
        }
    };
    check(&ApplyRelease::steps(), fresh, judge).await;
}

#[actix::test]
async fn whatever_step_the_process_dies_at_the_rollback_ends_done_or_as_before() {
    let hosts: RefCell<HashMap<OperationId, (Arc<Host>, PathBuf)>> = RefCell::default();
    let fresh = async || {
        let test_host = Arc::new(Host::new().await);
        let upgraded = test_host.release("new", "healthy: new").join("loam-proxy");
        let replace = ReplaceService { service: Service::Proxy, executable: upgraded.clone() };
        let supervisor = Destination { service: Service::Supervisor, host: Some(support::host()) };
        test_host.bus.call_at(supervisor, &replace, CALL_MAX).await.expect("replaced");
        let command = RollBackService { service: Service::Proxy, operation_id: None };
        let context = context_with(&test_host, Duration::from_secs(5), command);
        hosts.borrow_mut().insert(context.id.clone(), (Arc::clone(&test_host), upgraded));
        context
    };
    let judge = async |context: &Context<UpgradeContext, RollBackService>, outcome: &SagaOutcome| {
        let (test_host, upgraded) = hosts.borrow_mut().remove(&context.id).expect("made before");
        let runs = test_host.supervisor.runs();
        match outcome {
            SagaOutcome::Done if runs == test_host.installed() => Ok(()),
            SagaOutcome::Undone(_) if runs == upgraded => Ok(()),
            other => Err(format!("{other:?}: {} runs", runs.display())),
        }
    };
    check(&RollBackService::steps(), fresh, judge).await;
}
