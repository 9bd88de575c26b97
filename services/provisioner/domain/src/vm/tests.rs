use contract::ByteCount;
use contract::provisioner::{OpenDisksRefused, VmRefused};
use proptest::prelude::*;

use super::*;
use crate::inventory::{Inventory, NewVmParams};
use crate::seed::SeedImageRecord;

fn operation(number: u128) -> OperationId {
    OperationId::from_bits(number)
}

pub(crate) fn name(text: &str) -> VmName {
    VmName::new(text).expect("a good name")
}

pub(crate) fn definition(text: &str) -> VmDefinition {
    VmDefinition {
        name: name(text),
        seed: "tiny".parse().expect("a good name"),
        cpu_count: 1,
        ram_size: ByteCount::mib(256),
        disk_size: ByteCount::mib(512),
        domains: Vec::new(),
        env: Default::default(),
        install: Vec::new(),
    }
}

fn new_vm(by: OperationId) -> NewVmParams {
    NewVmParams {
        by,
        random_bits: 7,
        host: "h1".parse().expect("a good name"),
        now: chrono::DateTime::UNIX_EPOCH,
        secrets: None,
    }
}

fn with_seed() -> Inventory {
    let seed = contract::provisioner::Seed {
        name: "tiny".parse().expect("a good name"),
        host: "h1".parse().expect("a good name"),
        sha256: "a".repeat(64),
        virtual_size: ByteCount::mib(16),
        stored_size: ByteCount::mib(1),
        added: chrono::DateTime::UNIX_EPOCH,
    };
    Inventory::new([], [SeedImageRecord::Imported { seed, by: operation(1) }])
}

/// A VM whose creation has just begun, by operation 2.
pub(crate) fn new_record() -> VmRecord {
    with_seed().create(&definition("web"), &new_vm(operation(2))).expect("it may be created")
}

const READY: ObservedVmState = ObservedVmState::running(true, None);

pub(crate) fn complete(
    record: &VmRecord,
    by: u128,
    observed: ObservedVmState,
) -> Result<VmRecord, VmRefused> {
    record.apply(VmTransition::Complete { by: operation(by), observed, host_key: None })
}

pub(crate) fn begin(record: &VmRecord, by: u128, kind: VmLockKind) -> Result<VmRecord, VmRefused> {
    record.apply(VmTransition::Begin { by: operation(by), kind })
}

fn observe(record: &VmRecord, before: ObservedVmState, now: ObservedVmState) -> VmRecord {
    record.apply(VmTransition::RecordObservation { before, now }).expect("never refused")
}

fn release(record: &VmRecord, by: u128, observed: ObservedVmState) -> VmRecord {
    record.apply(VmTransition::Release { by: operation(by), observed }).expect("never refused")
}

/// A VM that runs and on which no operation is at work.
pub(crate) fn existing() -> VmRecord {
    complete(&new_record(), 2, READY).expect("its creator")
}

/// The same, observed in a power state.
pub(crate) fn observed(power: PowerState) -> VmRecord {
    observe(&existing(), READY, ObservedVmState::after(Some(READY), power))
}

#[test]
fn a_vm_shows_its_state_from_creation_to_removal() {
    let created = new_record();
    assert_eq!((created.state(), created.locked_by()), (VmState::Creating, Some(&operation(2))));
    let ready = existing();
    assert_eq!((ready.state(), ready.locked_by()), (VmState::Ready, None));
    let stopping = begin(&ready, 3, VmLockKind::Stopping).expect("free");
    assert_eq!(stopping.state(), VmState::Stopping);
    let stopped = complete(&stopping, 3, ObservedVmState::OFF).expect("at work");
    assert_eq!(stopped.state(), VmState::Stopped);
    assert!(matches!(begin(&stopped, 4, VmLockKind::Stopping), Err(VmRefused::AlreadyInState { .. })));
    let starting = begin(&stopped, 5, VmLockKind::Starting).expect("free");
    assert_eq!(starting.state(), VmState::Starting);
    let removing = complete(&starting, 5, READY).and_then(|vm| begin(&vm, 6, VmLockKind::Removing));
    assert_eq!(removing.expect("free").state(), VmState::Removing);
}

#[test]
fn a_paused_vm_says_why_and_can_be_started_stopped_and_read() {
    let reason = PauseReason::NoSpace;
    let paused = observed(PowerState::Paused(reason));
    assert_eq!((paused.state(), paused.pause_reason()), (VmState::Paused, Some(reason)));
    assert_eq!(
        paused.view(&HypervisorInfo { name: "libvirt", emulation_reason: None }).pause_reason,
        Some(reason)
    );
    assert_eq!(paused.may_be_read(&operation(3)), Ok(()));
    for (kind, state) in
        [(VmLockKind::Starting, VmState::Starting), (VmLockKind::Stopping, VmState::Stopping)]
    {
        let locked = begin(&paused, 3, kind).expect("it is not running");
        assert_eq!((locked.state(), locked.pause_reason()), (state, None));
    }
}

#[test]
fn only_one_operation_is_at_work_at_a_time() {
    let locked = begin(&existing(), 3, VmLockKind::Stopping).expect("free");
    for other in VmLockKind::ALL {
        assert_eq!(begin(&locked, 4, *other), Err(VmRefused::Locked { vm: name("web"), by: operation(3) }));
    }
    assert!(complete(&locked, 4, ObservedVmState::OFF).is_err());
    assert_eq!(locked.apply(VmTransition::RevertBegin { by: operation(4) }), Ok(locked));
}

#[test]
fn what_the_hypervisor_reports_never_changes_what_is_desired() {
    let gone = observe(&existing(), READY, ObservedVmState::MISSING);
    assert_eq!(gone.state(), VmState::Missing);
    assert!(matches!(gone.phase, VmPhase::Exists { desired: DesiredPowerState::Running, .. }));
    let stale = observe(&existing(), ObservedVmState::OFF, ObservedVmState::MISSING);
    assert_eq!(stale, existing(), "what was decided on an older record does not count");
}

#[test]
fn what_an_ended_operation_left_can_be_worked_on_again() {
    let freed = release(&new_record(), 2, ObservedVmState::MISSING);
    assert!(begin(&freed, 9, VmLockKind::Removing).is_ok());
    let stopping = begin(&existing(), 3, VmLockKind::Stopping).expect("free");
    let freed = release(&stopping, 3, READY);
    assert_eq!((freed.state(), freed.locked_by()), (VmState::Ready, None));
    assert_eq!(release(&existing(), 3, ObservedVmState::OFF), existing());
}

#[test]
fn a_vm_that_is_being_changed_is_not_read() {
    let other = operation(3);
    assert_eq!(existing().may_be_read(&other), Ok(()));
    assert!(matches!(new_record().may_be_read(&other), Err(OpenDisksRefused::Busy { .. })));
    let gone = observe(&existing(), READY, ObservedVmState::MISSING);
    assert!(matches!(gone.may_be_read(&other), Err(OpenDisksRefused::NotReadable { .. })));
}

#[test]
fn a_host_key_is_learned_by_completion_and_kept() {
    let by = operation(3);
    let locked = begin(&existing(), 3, VmLockKind::Stopping).expect("free");
    let transition = |host_key| VmTransition::Complete { by: by.clone(), observed: READY, host_key };
    let learned = locked.apply(transition(Some("ssh-ed25519 A".into()))).expect("at work");
    assert_eq!(learned.host_key.as_deref(), Some("ssh-ed25519 A"));
    let again =
        begin(&learned, 4, VmLockKind::Stopping).and_then(|vm| complete(&vm, 4, ObservedVmState::OFF));
    assert_eq!(again.expect("at work").host_key.as_deref(), Some("ssh-ed25519 A"));
}

fn any_operation() -> impl Strategy<Value = OperationId> {
    (1u128..4).prop_map(operation)
}

fn any_observed() -> impl Strategy<Value = ObservedVmState> {
    prop_oneof![
        Just(ObservedVmState::OFF),
        Just(ObservedVmState::MISSING),
        any::<bool>().prop_map(|ready| ObservedVmState::running(ready, None)),
        any::<bool>().prop_map(|ready| ObservedVmState {
            power: PowerState::Paused(PauseReason::User),
            ..ObservedVmState::running(ready, None)
        }),
    ]
}

fn any_kind() -> impl Strategy<Value = VmLockKind> {
    proptest::sample::select(VmLockKind::ALL)
}

fn any_transition() -> impl Strategy<Value = VmTransition> {
    prop_oneof![
        (any_operation(), any_kind()).prop_map(|(by, kind)| VmTransition::Begin { by, kind }),
        any_operation().prop_map(|by| VmTransition::RevertBegin { by }),
        (any_operation(), any_observed()).prop_map(|(by, observed)| VmTransition::Complete {
            by,
            observed,
            host_key: None
        }),
        (any_operation(), any_operation())
            .prop_map(|(by, reserved_by)| VmTransition::BeginReserved { by, reserved_by }),
        any_operation().prop_map(|by| VmTransition::RevertBeginReserved { by }),
        (any_observed(), any_observed())
            .prop_map(|(before, now)| VmTransition::RecordObservation { before, now }),
        (any_operation(), any_observed()).prop_map(|(by, observed)| VmTransition::Release { by, observed }),
    ]
}

proptest! {
    /// Whatever comes in whatever order: a transition made twice is a transition made once, and a lock is only ever
    /// taken from an operation by itself, or when it has ended.
    #[test]
    fn every_transition_is_idempotent_and_no_operation_loses_its_lock(
        reserved in any::<bool>(),
        transitions in proptest::collection::vec(any_transition(), 0..20),
    ) {
        let mut record = new_record();
        if reserved {
            record.phase = VmPhase::Reserved { by: operation(2) };
        }
        for transition in transitions {
            let holder = record.locked_by().cloned();
            let Ok(next) = record.apply(transition.clone()) else { continue };
            let again = next.apply(transition.clone());
            prop_assert_eq!(again.as_ref(), Ok(&next), "{:?}", transition);
            if let Some(holder) = holder
                && next.locked_by() != Some(&holder)
            {
                let by_itself = match &transition {
                    VmTransition::RevertBegin { by }
                    | VmTransition::Complete { by, .. }
                    | VmTransition::RevertBeginReserved { by }
                    | VmTransition::Release { by, .. } => *by == holder,
                    VmTransition::BeginReserved { reserved_by, .. } => *reserved_by == holder,
                    _ => false,
                };
                prop_assert!(by_itself, "{:?} took the lock of {:?}", transition, holder);
            }
            prop_assert_eq!(&next.identity, &record.identity);
            record = next;
        }
    }

    /// What an operation began and gave up is as if it had never been.
    #[test]
    fn giving_up_goes_back_to_what_was(observed in any_observed(), kind in any_kind()) {
        let before = observe(&existing(), READY, observed);
        if let Ok(begun) = begin(&before, 3, kind) {
            prop_assert_eq!(begun.apply(VmTransition::RevertBegin { by: operation(3) }), Ok(before.clone()));
            if let Ok(completed) = complete(&begun, 3, ObservedVmState::OFF) {
                let revert_complete = VmTransition::RevertComplete { by: operation(3), locked: begun.phase.clone() };
                prop_assert_eq!(completed.apply(revert_complete), Ok(VmRecord { last_completed_operation: None, ..begun }));
            }
        }
    }

    /// A record is read as it was written.
    #[test]
    fn a_record_survives_its_table(observed in any_observed(), kind in any_kind()) {
        let record = observe(&existing(), READY, observed);
        let record = begin(&record, 3, kind).unwrap_or(record);
        let text = serde_json::to_string(&record).expect("plain data");
        prop_assert_eq!(serde_json::from_str::<VmRecord>(&text).expect("read"), record);
    }
}

#[test]
fn a_row_that_cannot_be_read_keeps_its_name_and_every_image() {
    let mut inventory = with_seed();
    let digest = inventory.seeds().next().expect("a seed").sha256.clone();
    let seed = inventory.seeds().next().expect("a seed").name.clone();
    let web = VmName::new("web").expect("valid");
    inventory.set_aside_vm("h1.00000000-0000-4000-8000-000000000001", Some(web.clone()));
    assert!(inventory.is_vm_unreadable(&web));
    inventory.forget_seed(&seed);
    assert!(inventory.needs_image(&digest), "its disk may be based on it");
    assert!(inventory.vm(&VmName::new("web").expect("valid")).is_none() && !inventory.knows_all_vms());
    inventory.forget_vm(&VmName::new("web").expect("valid"));
    assert!(!inventory.needs_image(&digest) && inventory.knows_all_vms());
    inventory.set_aside_seed("another");
    assert!(inventory.needs_image(&digest), "it may be the same image");
}
