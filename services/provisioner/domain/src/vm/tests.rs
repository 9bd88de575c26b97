use contract::ByteCount;
use contract::provisioner::{OpenDisksRefused, VmRefused};
use proptest::prelude::*;

use super::*;
use crate::inventory::{Birth, Inventory};
use crate::seed::SeedRecord;

fn operation(number: u128) -> OperationId {
    OperationId::from_bits(number)
}

fn name(text: &str) -> VmName {
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

fn birth(by: OperationId) -> Birth {
    Birth { by, random: 7, host: "h1".parse().expect("a good name"), now: chrono::DateTime::UNIX_EPOCH }
}

fn with_seed() -> Inventory {
    let seed = contract::provisioner::Seed {
        name: "tiny".parse().expect("a good name"),
        sha256: "a".repeat(64),
        virtual_size: ByteCount::mib(16),
        stored_size: ByteCount::mib(1),
        added: chrono::DateTime::UNIX_EPOCH,
    };
    Inventory::new([], [SeedRecord::Here { seed, by: operation(1) }])
}

/// A machine in its first moment, made by operation 2.
pub(crate) fn fresh() -> VmRecord {
    with_seed().create(&definition("web"), &birth(operation(2))).expect("it may be made")
}

const READY: Seen = Seen::Running { ready: true, address: None };

/// A machine that runs and at which nobody is at work.
pub(crate) fn living() -> VmRecord {
    fresh().settle(&operation(2), READY).expect("its maker")
}

#[test]
fn a_machine_goes_through_its_life_and_shows_it() {
    let made = fresh();
    assert_eq!((made.state(), made.locked_by()), (VmState::Creating, Some(&operation(2))));
    let ready = living();
    assert_eq!((ready.state(), ready.locked_by()), (VmState::Ready, None));
    let stopping = ready.begin(&operation(3), WorkKind::Stopping).expect("free");
    assert_eq!(stopping.state(), VmState::Stopping);
    let stopped = stopping.settle(&operation(3), Seen::Off).expect("at work");
    assert_eq!(stopped.state(), VmState::Stopped);
    assert!(matches!(stopped.begin(&operation(4), WorkKind::Stopping), Err(VmRefused::Already { .. })));
    let starting = stopped.begin(&operation(5), WorkKind::Starting).expect("free");
    assert_eq!(starting.state(), VmState::Starting);
    let removing = starting
        .settle(&operation(5), READY)
        .and_then(|vm| vm.begin(&operation(6), WorkKind::Removing))
        .expect("free");
    assert_eq!(removing.state(), VmState::Removing);
}

#[test]
fn only_one_operation_is_at_work_at_a_time() {
    let locked = living().begin(&operation(3), WorkKind::Stopping).expect("free");
    for other in [WorkKind::Starting, WorkKind::Removing, WorkKind::Reading] {
        assert_eq!(
            locked.begin(&operation(4), other),
            Err(VmRefused::Locked { vm: name("web"), by: operation(3) })
        );
    }
    assert!(locked.settle(&operation(4), Seen::Off).is_err());
    assert_eq!(locked.give_up(&operation(4)), locked);
}

#[test]
fn what_the_hypervisor_says_never_changes_what_is_desired() {
    let gone = living().saw(READY, Seen::Missing);
    assert_eq!(gone.state(), VmState::Missing);
    assert!(matches!(gone.phase, Phase::Living { desired: Desired::Running, .. }));
    let stale = living().saw(Seen::Off, Seen::Missing);
    assert_eq!(stale, living(), "what was seen of another past does not count");
}

#[test]
fn what_an_ended_operation_left_can_be_worked_on_again() {
    let freed = fresh().release(&operation(2), Seen::Missing);
    assert!(freed.begin(&operation(9), WorkKind::Removing).is_ok());
    let stopping = living().begin(&operation(3), WorkKind::Stopping).expect("free");
    let freed = stopping.release(&operation(3), READY);
    assert_eq!((freed.state(), freed.locked_by()), (VmState::Ready, None));
    assert_eq!(living().release(&operation(3), Seen::Off), living());
}

#[test]
fn a_machine_that_is_being_changed_is_not_read() {
    let other = operation(3);
    assert_eq!(living().may_be_read(&other), Ok(()));
    assert!(matches!(fresh().may_be_read(&other), Err(OpenDisksRefused::Busy { .. })));
    let gone = living().saw(READY, Seen::Missing);
    assert!(matches!(gone.may_be_read(&other), Err(OpenDisksRefused::NotReadable { .. })));
}

fn any_operation() -> impl Strategy<Value = OperationId> {
    (1u128..4).prop_map(operation)
}

fn any_seen() -> impl Strategy<Value = Seen> {
    prop_oneof![
        Just(Seen::Off),
        Just(Seen::Missing),
        any::<bool>().prop_map(|ready| Seen::Running { ready, address: None }),
    ]
}

fn any_kind() -> impl Strategy<Value = WorkKind> {
    prop_oneof![
        Just(WorkKind::Starting),
        Just(WorkKind::Stopping),
        Just(WorkKind::Removing),
        Just(WorkKind::Reading),
    ]
}

fn any_move() -> impl Strategy<Value = VmMove> {
    prop_oneof![
        (any_operation(), any_kind()).prop_map(|(by, kind)| VmMove::Begin(by, kind)),
        any_operation().prop_map(VmMove::GiveUp),
        (any_operation(), any_seen()).prop_map(|(by, seen)| VmMove::Settle(by, seen)),
        (any_operation(), any_operation()).prop_map(|(by, of)| VmMove::Adopt(by, of)),
        any_operation().prop_map(VmMove::Unadopt),
        (any_seen(), any_seen()).prop_map(|(before, now)| VmMove::Saw(before, now)),
        (any_operation(), any_seen()).prop_map(|(by, seen)| VmMove::Release(by, seen)),
    ]
}

proptest! {
    /// Whatever comes in whatever order: a move made twice is a move made once, and a lock is only ever taken from
    /// an operation by itself, or when it has ended.
    #[test]
    fn every_move_bears_repetition_and_nobody_is_robbed_of_a_lock(
        reserved in any::<bool>(),
        moves in proptest::collection::vec(any_move(), 0..20),
    ) {
        let mut record = fresh();
        if reserved {
            record.phase = Phase::Reserved { by: operation(2) };
        }
        for this in moves {
            let holder = record.locked_by().cloned();
            let Ok(next) = record.make(this.clone()) else { continue };
            let again = next.make(this.clone());
            prop_assert_eq!(again.as_ref(), Ok(&next), "{:?}", this);
            if let Some(holder) = holder
                && next.locked_by() != Some(&holder)
            {
                let by_itself = match &this {
                    VmMove::GiveUp(by) | VmMove::Settle(by, _) | VmMove::Unadopt(by) | VmMove::Release(by, _) => {
                        *by == holder
                    }
                    VmMove::Adopt(_, of) => *of == holder,
                    _ => false,
                };
                prop_assert!(by_itself, "{:?} took the lock of {:?}", this, holder);
            }
            prop_assert_eq!(&next.identity, &record.identity);
            record = next;
        }
    }

    /// What an operation began and gave up is as if it had never been.
    #[test]
    fn giving_up_goes_back_to_what_was(seen in any_seen(), kind in any_kind()) {
        let before = living().saw(READY, seen);
        if let Ok(begun) = before.begin(&operation(3), kind) {
            prop_assert_eq!(begun.give_up(&operation(3)), before.clone());
            if let Ok(settled) = begun.settle(&operation(3), Seen::Off) {
                prop_assert_eq!(settled.unsettle(&operation(3), begun.phase.clone()), VmRecord {
                    settled_by: None,
                    ..begun
                });
            }
        }
    }

    /// A record is read as it was written.
    #[test]
    fn a_record_survives_its_table(seen in any_seen(), kind in any_kind()) {
        let record = living().saw(READY, seen);
        let record = record.begin(&operation(3), kind).unwrap_or(record);
        let text = serde_json::to_string(&record).expect("plain data");
        prop_assert_eq!(serde_json::from_str::<VmRecord>(&text).expect("read"), record);
    }
}
