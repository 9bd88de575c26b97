//! An operation whose command has secret fields: its row holds them encrypted while it runs, and not at all afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bus::memory::MemoryTransport;
use bus::{Bus, CallError, Caller, ServiceInfo, Transport};
use contract::operation::{BegunOperation, GetScriptOutput, OperationChanged, OperationState, ScriptOutput};
use contract::provisioner::{CreateVm, Script, StartVm, VmDefinition};
use contract::{ByteCount, HostName, OperationId, Realm, Service, VmName, bucket};
use encryption::{RowKeys, new_key};
use futures::StreamExt;
use operation::{BeginError, Context, Engine, PendingCommand, Saga, Sagas, new_id};
use saga::{Outputs, Step, StepError};
use testkit::eventually;

/// What must not be found, and what must be: the search itself is tested by it.
const SECRET: &str = "sesame-4711";
const PUBLIC: &str = "web-4711";

#[derive(Default)]
struct State {
    waits: AtomicUsize,
    may_go_on: AtomicBool,
    fails: AtomicBool,
}

impl Saga<State> for CreateVm {
    fn steps() -> Vec<Step<Context<State, CreateVm>>> {
        vec![
            Step::new("lock", Duration::from_secs(5), lock),
            Step::new("wait", Duration::from_secs(60), wait),
            Step::new("finish", Duration::from_secs(5), finish),
        ]
    }
}

async fn lock(context: &Context<State, CreateVm>, _: &Outputs) -> Result<String, StepError> {
    let secret = context.command.definition.env["PASSWORD"].clone();
    context.scripts.keep("install.sh", format!("the password is {secret}"));
    Ok(secret)
}
async fn wait(context: &Context<State, CreateVm>, outputs: &Outputs) -> Result<String, StepError> {
    context.state.waits.fetch_add(1, Ordering::SeqCst);
    while !context.state.may_go_on.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    outputs.get("lock")
}
async fn finish(context: &Context<State, CreateVm>, outputs: &Outputs) -> Result<bool, StepError> {
    if context.state.fails.load(Ordering::SeqCst) {
        return Err(StepError::Permanent("it does not start".into()));
    }
    Ok(outputs.get::<String>("wait")? == SECRET)
}

impl Saga<State> for StartVm {
    fn steps() -> Vec<Step<Context<State, StartVm>>> {
        vec![Step::new("start", Duration::from_secs(5), async |_: &Context<State, StartVm>, _: &Outputs| {
            Ok(())
        })]
    }
}

fn create(password: &str) -> CreateVm {
    let definition = VmDefinition {
        name: VmName::new(PUBLIC).expect("a name"),
        seed: "tiny".parse().expect("a name"),
        cpu_count: 1,
        ram_size: ByteCount::mib(64),
        disk_size: ByteCount::mib(64),
        domains: Vec::new(),
        env: BTreeMap::from([("PASSWORD".into(), password.into())]),
        install: vec![Script { name: "install.sh".into(), text: format!("#!/bin/sh\necho {password}\n") }],
    };
    CreateVm { definition, host: None, overcommit: false, operation_id: None }
}

fn alice() -> Caller {
    Caller::Person { user: "UALICE".into(), name: Some("alice".into()) }
}

fn pending(id: &OperationId, password: &str) -> PendingCommand<CreateVm> {
    PendingCommand { id: id.clone(), command: create(password), caller: alice(), on_behalf_of: None }
}

/// The keys of these bytes, newest first; none without any.
fn keys(bytes: &[u8]) -> Arc<RowKeys> {
    let text: String = bytes.iter().map(|byte| new_key([*byte; 32]).to_string()).collect();
    Arc::new(RowKeys::parse(&text).unwrap_or_else(|_| RowKeys::none("there is no file")))
}

fn bus(transport: &MemoryTransport) -> Bus {
    Bus::new(Arc::new(transport.clone()), Realm::default())
}

fn engine(transport: &MemoryTransport, state: &Arc<State>, key_bytes: &[u8]) -> Engine {
    let host = HostName::new("h1").expect("a name");
    let sagas = Sagas::default().with::<CreateVm>().with::<StartVm>().encrypted_with(keys(key_bytes));
    sagas.open(bus(transport), Service::Provisioner, host, state)
}

async fn row(transport: &MemoryTransport) -> Vec<u8> {
    let mut rows = transport.read_page(bucket::OPERATIONS.name, "", 0).await.expect("listed").rows;
    assert_eq!(rows.len(), 1);
    rows.remove(0).value.to_vec()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

async fn has_no_secret(transport: &MemoryTransport) {
    let row = row(transport).await;
    assert!(holds(&row, PUBLIC), "the search finds what is there");
    assert!(!holds(&row, SECRET), "{}", String::from_utf8_lossy(&row));
}

async fn waits(state: &State, times: usize) {
    eventually("it waits", async || state.waits.load(Ordering::SeqCst) == times).await;
}

async fn ends(engine: &Engine, id: &OperationId, state: OperationState) {
    eventually(&format!("{id} ends {state:?}"), async || {
        engine.find(id).await.expect("readable").is_some_and(|report| report.state == state)
    })
    .await;
}

#[tokio::test]
async fn no_row_and_no_event_holds_a_secret_whether_it_ends_done_or_undone() {
    for (fails, end) in [(false, OperationState::Done), (true, OperationState::Undone)] {
        let (transport, state) = (MemoryTransport::new(), Arc::new(State::default()));
        state.fails.store(fails, Ordering::SeqCst);
        let engine = engine(&transport, &state, &[1]);
        let mut events = bus(&transport).subscribe::<OperationChanged>().await.expect("subscribed");
        let id = new_id();
        engine.begin(pending(&id, SECRET)).await.expect("begun");
        has_no_secret(&transport).await;
        waits(&state, 1).await;
        has_no_secret(&transport).await;
        state.may_go_on.store(true, Ordering::SeqCst);
        ends(&engine, &id, end.clone()).await;
        has_no_secret(&transport).await;
        if end == OperationState::Done {
            let report = engine.find(&id).await.expect("readable").expect("there");
            assert_eq!(report.output, Some(true.into()), "its steps had the secret");
        }
        loop {
            let (OperationChanged(report), _) = events.next().await.expect("published");
            let text = serde_json::to_string(&report).expect("plain data");
            assert!(text.contains(PUBLIC) && !text.contains(SECRET), "{text}");
            if report.state == end {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_repetition_is_no_reused_id_before_and_after_the_end() {
    let (transport, state) = (MemoryTransport::new(), Arc::new(State::default()));
    let first = engine(&transport, &state, &[1]);
    let id = new_id();
    first.begin(pending(&id, SECRET)).await.expect("begun");
    let check = async |engine: &Engine| {
        let again = engine.begin(pending(&id, SECRET)).await.expect("the same");
        assert_eq!(again, BegunOperation::AlreadyBegun(id.clone()));
        let other = engine.begin(pending(&id, "another password")).await;
        assert!(matches!(other, Err(BeginError::IdReused(_))), "{other:?}");
    };
    check(&first).await;
    state.may_go_on.store(true, Ordering::SeqCst);
    ends(&first, &id, OperationState::Done).await;
    check(&first).await;
    // With another key before it, too; without its key nothing is known, and nothing begins.
    check(&engine(&transport, &state, &[2, 1])).await;
    let dropped = engine(&transport, &state, &[2]);
    for password in [SECRET, "another password"] {
        let refused = dropped.begin(pending(&id, password)).await;
        assert!(matches!(refused, Err(BeginError::Incomparable { .. })), "{refused:?}");
    }
    assert_eq!(state.waits.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_operation_goes_on_after_a_rotation_and_is_then_encrypted_with_the_new_key() {
    let (transport, state) = (MemoryTransport::new(), Arc::new(State::default()));
    let id = new_id();
    let before = engine(&transport, &state, &[1]);
    before.begin(pending(&id, SECRET)).await.expect("begun");
    waits(&state, 1).await;
    before.shut_down().await;
    state.may_go_on.store(true, Ordering::SeqCst);
    let rotated = engine(&transport, &state, &[2, 1]);
    assert_eq!(rotated.resume().await.expect("read"), 1);
    ends(&rotated, &id, OperationState::Done).await;
    let without_the_old_one = engine(&transport, &state, &[2]);
    let again = without_the_old_one.begin(pending(&id, SECRET)).await.expect("the same");
    assert_eq!(again, BegunOperation::AlreadyBegun(id));
}

#[tokio::test]
async fn with_the_wrong_key_an_operation_is_left_as_it_is_until_the_right_one_is_back() {
    let (transport, state) = (MemoryTransport::new(), Arc::new(State::default()));
    let id = new_id();
    let before = engine(&transport, &state, &[1]);
    before.begin(pending(&id, SECRET)).await.expect("begun");
    waits(&state, 1).await;
    before.shut_down().await;
    let kept = row(&transport).await;
    for wrong in [&[2][..], &[]] {
        let engine = engine(&transport, &state, wrong);
        engine.resume().await.expect("read");
        eventually("it is named", async || engine.undecryptable() == [id.clone()]).await;
        let report = engine.find(&id).await.expect("readable").expect("listed");
        assert_eq!(report.state, OperationState::Running);
        // What needs no key works.
        let start = StartVm { vm: VmName::new("x").expect("a name"), operation_id: None };
        let other = new_id();
        engine.begin(PendingCommand::of_service(Service::Backup, other.clone(), start)).await.expect("begun");
        ends(&engine, &other, OperationState::Done).await;
        let revision = transport.get(bucket::OPERATIONS.name, other.as_str()).await.expect("read");
        let revision = revision.expect("there").revision;
        transport.remove(bucket::OPERATIONS.name, other.as_str(), revision).await.expect("removed");
        engine.shut_down().await;
        assert_eq!(row(&transport).await, kept);
    }
    let without = engine(&transport, &state, &[]);
    let refused = without.begin(pending(&new_id(), SECRET)).await;
    assert!(matches!(refused, Err(BeginError::NoKey(_))), "{refused:?}");
    let right = engine(&transport, &state, &[1]);
    state.may_go_on.store(true, Ordering::SeqCst);
    assert_eq!(right.resume().await.expect("read"), 1);
    ends(&right, &id, OperationState::Done).await;
}

#[tokio::test]
async fn what_scripts_wrote_is_kept_encrypted_and_survives_the_process_and_the_end() {
    let (transport, state) = (MemoryTransport::new(), Arc::new(State::default()));
    let id = new_id();
    let first = engine(&transport, &state, &[1]);
    first.begin(pending(&id, SECRET)).await.expect("begun");
    waits(&state, 1).await;
    let written =
        vec![ScriptOutput { script: "install.sh".into(), output: format!("the password is {SECRET}") }];
    let asked = async |engine: &Engine, id: &OperationId| {
        let info = ServiceInfo {
            service: Service::Provisioner,
            version: "0.0.0".into(),
            metadata: Default::default(),
        };
        let mut server = bus(&transport).server(info);
        engine.serve(&mut server);
        let server = server.open().await.expect("endpoints");
        let ask = GetScriptOutput { id: id.clone() };
        let answer = bus(&transport).call_at(Service::Provisioner, &ask, Duration::from_secs(10)).await;
        server.close().await;
        answer
    };
    assert_eq!(asked(&first, &id).await.expect("shown"), written);
    first.shut_down().await;
    let second = engine(&transport, &state, &[1]);
    state.may_go_on.store(true, Ordering::SeqCst);
    second.resume().await.expect("read");
    ends(&second, &id, OperationState::Done).await;
    assert_eq!(asked(&second, &id).await.expect("shown"), written);
    assert!(matches!(asked(&second, &new_id()).await, Err(CallError::Refused(_))));
    let wrong = engine(&transport, &state, &[2]);
    let error = asked(&wrong, &id).await.expect_err("it does not decrypt").to_string();
    assert!(error.contains("does not decrypt") && !error.contains(SECRET), "{error}");
}

#[tokio::test]
#[should_panic(expected = "no keys to encrypt their rows with")]
async fn a_service_with_secret_fields_and_no_keys_does_not_open() {
    let (transport, state) = (MemoryTransport::new(), Arc::new(State::default()));
    let host = HostName::new("h1").expect("a name");
    Sagas::default().with::<CreateVm>().open(bus(&transport), Service::Provisioner, host, &state);
}
