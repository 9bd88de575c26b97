//! Variables and scripts of VMs: encrypted in every row, in no list and no event, and not needed for anything but the
//! first scripts, a backup and the operator.

use bus::{CallError, Transport};
use contract::Service;
use contract::bucket;
use contract::operation::GetScriptOutput;
use contract::provisioner::*;
use encryption::RowKeys;
use futures::StreamExt;
use operation::new_id;
use provisioner::adapters::simulated::{Fault, SimulatedCall};
use provisioner_domain::{StoredSecrets, VmRecord};
use testkit::eventually;

use crate::support::{ANSWER, CallHere, Running, definition, row_keys, script, vm};

/// What must not be found, and what must be: the search itself is tested by it.
const SECRET: &str = "sesame-4711";
const PUBLIC: &str = "web-4711";

fn with_secrets() -> VmDefinition {
    let mut definition = definition(PUBLIC);
    definition.env.insert("PASSWORD".into(), SECRET.into());
    definition.install = vec![script("install.sh", &format!("#!/bin/sh\necho {SECRET}\n"))];
    definition
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// No row of any table holds the secret; some hold the name.
async fn has_no_secret(running: &Running) {
    let mut found = 0;
    for table in bucket::of_service(Service::Provisioner) {
        for row in running.transport.read_page(table.name, "", 0).await.expect("listed").rows {
            assert!(!holds(&row.value, SECRET), "{}.{}", table.name, row.key);
            found += usize::from(holds(&row.value, PUBLIC));
        }
    }
    assert!(found > 0, "the search finds what is there");
}

async fn secrets(running: &Running) -> Result<VmSecrets, CallError<VmRefused>> {
    running.bus.call(&GetVmSecrets { vm: vm(PUBLIC) }, ANSWER).await
}

/// What the row of the only VM holds encrypted.
async fn stored(running: &Running) -> StoredSecrets {
    let rows = running.transport.read_page(bucket::VMS.name, "", 0).await.expect("listed").rows;
    assert_eq!(rows.len(), 1);
    let record: VmRecord = bus::read_row(&rows[0].value).expect("readable");
    record.secrets.expect("its secrets")
}

async fn key_problems(running: &Running) -> Vec<String> {
    let problems = running.problems().await.into_iter();
    problems.filter(|problem| problem.starts_with("row keys")).collect()
}

#[actix::test]
async fn no_row_no_event_and_no_list_holds_a_value_from_creation_to_removal() {
    let running = Running::start().await;
    running.add_seed().await;
    let mut changes = running.bus.subscribe::<VmChanged>().await.expect("subscribed");
    running.simulated.faults.set(SimulatedCall::Define, Fault::Stall);
    let create =
        CreateVm { definition: with_secrets(), host: None, overcommit: false, operation_id: Some(new_id()) };
    let begun = running.bus.call(&create, ANSWER).await.expect("begun");
    eventually("its name is reserved", async || {
        running.bus.call(&GetVm { vm: vm(PUBLIC) }, ANSWER).await.is_ok()
    })
    .await;
    has_no_secret(&running).await;
    running.simulated.faults.clear(SimulatedCall::Define);
    let report = running.done(begun.operation()).await;
    has_no_secret(&running).await;

    let shown = running.bus.call(&GetVm { vm: vm(PUBLIC) }, ANSWER).await.expect("it exists");
    assert_eq!(
        (&shown.variables[..], &shown.scripts[..]),
        (&["PASSWORD".into()][..], &["install.sh".into()][..])
    );
    let listed = running.bus.call(&ListVms {}, ANSWER).await.expect("a list");
    let (event, _) = changes.next().await.expect("one");
    let text = serde_json::to_string(&(&report, &shown, &listed, &event)).expect("plain data");
    assert!(text.contains(PUBLIC) && !text.contains(SECRET), "{text}");
    assert!(!format!("{create:?}").contains(SECRET), "nor does what may be logged of a request");
    let VmSecrets { env, install } = secrets(&running).await.expect("shown");
    assert_eq!((env, install), (create.definition.env.clone(), create.definition.install.clone()));

    // A backup gets everything, once and again, also from a provisioner that was started anew.
    let open = OpenDisks { vm: vm(PUBLIC), operation_id: new_id() };
    for _ in 0..2 {
        let opened = running.bus.call_here(&open, ANSWER).await.expect("opened");
        assert_eq!(opened.definition, create.definition);
        has_no_secret(&running).await;
    }
    let running = running.restart().await;
    let opened = running.bus.call_here(&open, ANSWER).await.expect("opened");
    assert_eq!(opened.definition, create.definition);
    running.bus.call_here(&CloseDisks { operation_id: open.operation_id }, ANSWER).await.expect("closed");

    // So does a restore.
    let copy = VmDefinition { name: vm("copy"), domains: Vec::new(), ..create.definition.clone() };
    let disks = vec![DiskSize { disk: "vda".parse().expect("valid"), size: copy.disk_size }];
    let reserve =
        ReserveVmName { definition: copy.clone(), disks, overcommit: false, operation_id: new_id() };
    running.bus.call_here(&reserve, ANSWER).await.expect("reserved");
    has_no_secret(&running).await;
    let of_copy = running.bus.call(&GetVmSecrets { vm: vm("copy") }, ANSWER).await.expect("shown");
    assert_eq!((of_copy.env, of_copy.install), (copy.env, copy.install));

    // What is left of a removed VM are its operations.
    running.run(RemoveVm { vm: vm(PUBLIC), operation_id: None }).await;
    has_no_secret(&running).await;
}

#[actix::test]
async fn a_script_that_fails_is_not_quoted_and_what_it_wrote_is_shown_on_request() {
    let running = Running::start().await;
    running.add_seed().await;
    let mut definition = with_secrets();
    definition.install.push(script("last.sh", "#!/bin/sh\nexit 3\n"));
    let id = new_id();
    let create = CreateVm { definition, host: None, overcommit: false, operation_id: Some(id.clone()) };
    let reason = running.run_undone(create).await;
    assert!(reason.contains("last.sh ended with status 3") && !reason.contains(SECRET), "{reason}");
    let rows = running.transport.read_page(bucket::OPERATIONS.name, "", 0).await.expect("listed").rows;
    assert!(
        rows.iter().any(|row| holds(&row.value, PUBLIC)) && !rows.iter().any(|row| holds(&row.value, SECRET))
    );
    let ask = GetScriptOutput { id };
    let outputs = running.bus.call_at(Service::Provisioner, &ask, ANSWER).await.expect("shown");
    let names: Vec<&str> = outputs.iter().map(|output| output.script.as_str()).collect();
    assert_eq!(names, ["install.sh", "last.sh"]);
    assert!(outputs.iter().all(|output| output.output.contains(SECRET)), "it had the variable");
}

#[actix::test]
async fn after_a_rotation_everything_is_encrypted_with_the_new_key_and_the_old_one_can_be_removed() {
    let running = Running::start().await;
    running.add_seed().await;
    running.create(with_secrets()).await;
    let before = stored(&running).await;
    let running = running.restart_with_keys(row_keys(&[2, 1])).await;
    let after = stored(&running).await;
    assert_ne!(after, before);
    let notices = running.notices();
    let old = row_keys(&[1]).ids().next().expect("a key").to_string();
    assert!(notices.iter().any(|notice| notice.contains(&old)), "{notices:?}");
    let running = running.restart_with_keys(row_keys(&[2])).await;
    assert_eq!(stored(&running).await, after);
    assert_eq!(secrets(&running).await.expect("shown").env["PASSWORD"], SECRET);
    assert_eq!(key_problems(&running).await, [""; 0]);
    assert!(!running.notices().iter().any(|notice| notice.contains("row keys")));
}

#[actix::test]
async fn without_its_key_a_vm_is_listed_started_and_backed_up_and_nothing_is_erased() {
    let running = Running::start().await;
    running.add_seed().await;
    running.create(with_secrets()).await;
    let kept = stored(&running).await;
    let mut running = running;
    for wrong in [row_keys(&[2]), RowKeys::none("keys/rows.key is not there")] {
        let has_keys = wrong.problem().is_none();
        running = running.restart_with_keys(wrong).await;
        let problems = running.problems().await;
        assert!(
            problems.iter().any(|problem| problem.contains(PUBLIC) && problem.contains("decrypt")),
            "{problems:?}"
        );
        let listed = running.bus.call(&ListVms {}, ANSWER).await.expect("a list");
        assert_eq!(listed[0].definition.name, vm(PUBLIC));
        running.run(StopVm { vm: vm(PUBLIC), operation_id: None }).await;
        running.run(StartVm { vm: vm(PUBLIC), operation_id: None }).await;
        let open = OpenDisks { vm: vm(PUBLIC), operation_id: new_id() };
        let opened = running.bus.call_here(&open, ANSWER).await.expect("its disks matter more");
        assert!(opened.definition.env.is_empty() && opened.definition.install.is_empty());
        running.bus.call_here(&CloseDisks { operation_id: open.operation_id }, ANSWER).await.expect("closed");
        assert!(matches!(secrets(&running).await, Err(CallError::Failed(_))));
        assert_eq!(stored(&running).await, kept);
        if !has_keys {
            let other = VmDefinition { name: vm("other"), domains: Vec::new(), ..with_secrets() };
            let create = CreateVm { definition: other, host: None, overcommit: false, operation_id: None };
            let failed = running.bus.call(&create, ANSWER).await.expect_err("no key").to_string();
            assert!(failed.contains("keys/rows.key is not there"), "{failed}");
        }
    }
    let running = running.restart().await;
    assert_eq!(secrets(&running).await.expect("shown").env["PASSWORD"], SECRET);
    assert_eq!(key_problems(&running).await, [""; 0]);
}

#[test]
fn a_key_file_that_others_can_read_or_that_is_damaged_gives_no_keys_and_says_why() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rows.key");
    let problem = || provisioner::secrets::read_keys(&path).problem().map(str::to_owned);
    assert!(problem().is_some_and(|problem| problem.contains("rows.key")), "there is none");
    std::fs::write(&path, encryption::new_key([1; 32])).expect("written");
    for (mode, fine) in [(0o600, true), (0o640, false), (0o604, false), (0o622, false)] {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("its mode");
        assert_eq!(problem().is_none(), fine, "{mode:o}");
    }
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("its mode");
    std::fs::write(&path, SECRET).expect("written");
    assert!(problem().is_some_and(|problem| !problem.contains(SECRET)));
}
