//! One command creates a VM, and the proxy routes traffic to it.

use contract::provisioner::{CreateVm, CreateVmRefused, ListVms, VmState};
use contract::supervisor::ListProcesses;
use contract::{Service, VmName};
use system_tests::{Installation, definition_file, get, image};
use testkit::eventually;

/// Grows `web` from an image; most tests begin so.
pub(crate) async fn create_web(installation: &Installation) {
    let image = image(installation.state(), 1);
    let path = image.path.display().to_string();
    installation.loam_json(&["seed", "add", "tiny", "--from", &path, "--sha256", &image.sha256]);
    let file =
        definition_file(installation.state(), "web", "tiny", "web.example", "#!/bin/sh\necho $GREETING\n");
    installation.loam_json(&["vm", "create", &file.display().to_string()]);
}

async fn status(installation: &Installation, domain: &str) -> u16 {
    let proxy = installation.proxy().await;
    get(proxy, domain, "/").await.map_or(0, |answer| answer.status)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_is_created_from_a_file_and_the_proxy_routes_to_it_while_it_runs() {
    let installation = Installation::simulated().await;
    assert_eq!(status(&installation, "web.example").await, 404);
    create_web(&installation).await;
    let vms = installation.ask(ListVms {}).await;
    assert_eq!((vms.len(), vms[0].state, vms[0].hypervisor.as_str()), (1, VmState::Ready, "simulated"));
    eventually("the page is reached", async || status(&installation, "web.example").await == 200).await;

    installation.loam_json(&["vm", "stop", "web"]);
    eventually("the page is away", async || status(&installation, "web.example").await == 503).await;
    let answer = get(installation.proxy().await, "web.example", "/").await.expect("an answer");
    let seconds: u32 = answer.header("Retry-After").expect("a hint").parse().expect("seconds");
    assert!(seconds > 0);

    installation.loam_json(&["vm", "start", "web"]);
    eventually("the page is back", async || status(&installation, "web.example").await == 200).await;

    installation.loam_json(&["vm", "remove", "web"]);
    eventually("the route is gone", async || status(&installation, "web.example").await == 404).await;
    assert!(installation.ask(ListVms {}).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_kept_over_an_orderly_end_and_a_new_start() {
    let mut installation = Installation::simulated().await;
    create_web(&installation).await;
    let before = installation.ask(ListVms {}).await;
    assert!(installation.end().await.success(), "{}", installation.logs());
    installation.restart().await;
    let after = installation.ask(ListVms {}).await;
    assert_eq!(
        (after[0].uuid.clone(), after[0].mac.clone()),
        (before[0].uuid.clone(), before[0].mac.clone())
    );
    eventually("the page is reached", async || status(&installation, "web.example").await == 200).await;
    assert_eq!(installation.ask(ListProcesses {}).await.len(), Service::FIVE.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_definition_is_refused_with_file_line_and_key_before_anything_is_touched() {
    let installation = Installation::simulated().await;
    let path = installation.state().join("bad.toml");
    for (text, parts) in [
        ("name = \"web\"\nseed = \"tiny\"\ncpu_cout = 2\n", vec!["bad.toml", "3", "cpu_cout"]),
        ("name = \"We b\"\nseed = \"tiny\"\n", vec!["bad.toml", "1", "name"]),
        (
            "name = \"web\"\nseed = \"tiny\"\ncpu_count = 1\nram_size = \"lots\"\n",
            vec!["bad.toml", "4", "ram_size"],
        ),
        ("name = \"web\"\nseed == 3\n", vec!["bad.toml", "2"]),
    ] {
        std::fs::write(&path, text).expect("written");
        let output = installation.loam(&["vm", "create", &path.display().to_string()]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        for part in parts {
            assert!(stderr.contains(part), "{part:?} is missing in {stderr}");
        }
    }
    assert!(installation.ask(ListVms {}).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_machine_cannot_take_name_or_domain_of_the_first() {
    let installation = Installation::simulated().await;
    create_web(&installation).await;
    let mut definition = installation.ask(ListVms {}).await.remove(0).definition;
    let again =
        CreateVm { definition: definition.clone(), host: None, overcommit: false, operation_id: None };
    assert_eq!(installation.refused(again).await, CreateVmRefused::NameTaken(definition.name.clone()));
    let owner = definition.name.clone();
    definition.name = VmName::new("other").expect("valid");
    let taken = definition.domains[0].domain.clone();
    let second = CreateVm { definition, host: None, overcommit: false, operation_id: None };
    assert_eq!(
        installation.refused(second).await,
        CreateVmRefused::HttpDomainTaken { domain: taken, vm: owner }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_that_is_not_what_it_should_be_is_not_added() {
    let installation = Installation::simulated().await;
    let image = image(installation.state(), 1);
    let path = image.path.display().to_string();
    let output = installation.loam(&["seed", "add", "tiny", "--from", &path, "--sha256", &"0".repeat(64)]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains(&image.sha256), "{output:?}");
    assert_eq!(installation.loam_json(&["seed", "list"]).as_array().map(Vec::len), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_does_the_main_job_on_simulated_vms() {
    let installation = Installation::simulated().await;
    let output = installation.loam(&["demo"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(installation.ask(ListVms {}).await.is_empty(), "what it made is removed again");
}
