use contract::provisioner::VmState;

use super::*;
use crate::vm::VmLockKind;
use crate::vm::VmTransition;
use crate::vm::tests::{existing, new_record};

fn found(record: &VmRecord, power: PowerState, answers: bool) -> FoundVm {
    FoundVm {
        uuid: record.identity.uuid.clone(),
        vm: record.name().clone(),
        operation: OperationId::from_bits(2),
        power,
        address: (power == PowerState::Running).then(|| std::net::Ipv4Addr::new(10, 0, 0, 9).into()),
        guest_answers: answers,
        off_in_order: None,
        disks_changed: false,
    }
}

fn decided(record: &VmRecord, found: &[FoundVm], outcome: OperationStatus) -> Vec<ReconcileAction> {
    decide([record], found, &|_| outcome, true)
}

fn observe(record: &VmRecord, now: ObservedVmState) -> VmRecord {
    let before = record.observed().expect("it exists");
    record.apply(VmTransition::RecordObservation { before, now }).expect("it is observed")
}

#[test]
fn where_nothing_differs_nothing_is_done() {
    let known = existing();
    let running = found(&known, PowerState::Running, true);
    let [ReconcileAction::RecordObservation(_, _, now)] =
        &decided(&known, std::slice::from_ref(&running), OperationStatus::Done)[..]
    else {
        panic!("its address is new");
    };
    let known = observe(&known, *now);
    assert_eq!(decided(&known, &[running], OperationStatus::Done), []);
}

#[test]
fn a_vm_that_went_off_is_observed_and_started_again() {
    let known = existing();
    let name = known.name().clone();
    let before = known.observed().expect("it exists");
    assert_eq!(
        decided(&known, &[found(&known, PowerState::Off, false)], OperationStatus::Done),
        [
            ReconcileAction::RecordObservation(name.clone(), before, ObservedVmState::OFF),
            ReconcileAction::StartVm(name)
        ]
    );
}

#[test]
fn a_vm_whose_disks_others_changed_is_shown_so_and_not_started() {
    let known = existing();
    let changed = |power| FoundVm { disks_changed: true, ..found(&known, power, false) };
    let decisions = decided(&known, &[changed(PowerState::Off)], OperationStatus::Done);
    let [ReconcileAction::RecordObservation(_, _, now)] = &decisions[..] else {
        panic!("{decisions:?}");
    };
    let off = observe(&known, *now);
    assert!(off.problem().is_some_and(|problem| problem.contains("virsh blockcommit")));
    assert_eq!(decided(&off, &[changed(PowerState::Off)], OperationStatus::Done), []);

    let gone = decided(&off, &[], OperationStatus::Done);
    assert!(
        matches!(&gone[..], [ReconcileAction::RecordObservation(_, _, now)] if now.disks_changed),
        "its disks are still what others made of them: {gone:?}"
    );

    let running = decided(&off, &[changed(PowerState::Running)], OperationStatus::Done);
    assert!(matches!(&running[..], [ReconcileAction::RecordObservation(_, _, now)] if now.disks_changed));
    let back = decided(&off, &[found(&known, PowerState::Off, false)], OperationStatus::Done);
    assert_eq!(
        back,
        [
            ReconcileAction::RecordObservation(known.name().clone(), *now, ObservedVmState::OFF),
            ReconcileAction::StartVm(known.name().clone())
        ]
    );
}

#[test]
fn while_the_hypervisor_is_away_nothing_is_known_and_afterwards_only_what_it_says() {
    let address = Some(std::net::Ipv4Addr::new(10, 0, 0, 7).into());
    let known = observe(&existing(), ObservedVmState::running(true, address));
    let [ReconcileAction::RecordObservation(_, _, now)] = &without_answer([&known])[..] else {
        panic!("it is observed");
    };
    let away = observe(&known, *now);
    assert_eq!((away.state(), away.address()), (VmState::Unknown, None));
    assert_eq!(without_answer([&away]), [], "once is enough");
    for answers in [true, false] {
        let decisions = decided(&away, &[found(&known, PowerState::Running, answers)], OperationStatus::Done);
        let [ReconcileAction::RecordObservation(_, _, now)] = &decisions[..] else {
            panic!("{decisions:?}");
        };
        let back = observe(&away, *now);
        let expected = if answers { VmState::Ready } else { VmState::Starting };
        assert_eq!(
            (back.state(), back.address().map(|at| at.to_string())),
            (expected, Some("10.0.0.9".into()))
        );
    }
    let decisions = decided(&away, &[found(&known, PowerState::Off, false)], OperationStatus::Done);
    assert!(
        decisions.contains(&ReconcileAction::StartVm(known.name().clone())),
        "its host was started again"
    );
}

#[test]
fn a_vm_that_shut_down_by_itself_is_known_to_have_gone_off_in_order() {
    let known = existing();
    for (said, expected) in [(Some(true), true), (Some(false), false), (None, false)] {
        let off = FoundVm { off_in_order: said, ..found(&known, PowerState::Off, false) };
        let decisions = decided(&known, &[off], OperationStatus::Done);
        assert!(
            matches!(&decisions[..], [ReconcileAction::RecordObservation(_, _, now), _] if now.off_in_order == expected),
            "{said:?}: {decisions:?}"
        );
    }
}

#[test]
fn a_missing_vm_is_observed_and_nothing_is_erased_or_created() {
    let known = existing();
    let decisions = decided(&known, &[], OperationStatus::Done);
    assert!(
        matches!(&decisions[..], [ReconcileAction::RecordObservation(_, _, ObservedVmState::MISSING)]),
        "{decisions:?}"
    );
}

#[test]
fn a_vm_on_which_an_operation_works_is_left_to_it() {
    let creating = new_record();
    for outcome in [OperationStatus::Running, OperationStatus::NoSuchOperation] {
        for found in [vec![], vec![found(&creating, PowerState::Off, false)]] {
            assert_eq!(decided(&creating, &found, outcome), []);
        }
    }
    let by = OperationId::from_bits(2);
    assert_eq!(
        decided(&creating, &[], OperationStatus::Stuck),
        [ReconcileAction::ReleaseVmLock(creating.name().clone(), by, ObservedVmState::MISSING)]
    );
}

#[test]
fn a_running_vm_is_ready_once_it_answers_and_stays_ready_without_being_asked() {
    let off = observe(&existing(), ObservedVmState::OFF);
    for (answers, expected) in [(false, false), (true, true)] {
        let decisions = decided(&off, &[found(&off, PowerState::Running, answers)], OperationStatus::Done);
        let [ReconcileAction::RecordObservation(_, _, now)] = &decisions[..] else {
            panic!("{decisions:?}");
        };
        assert_eq!((now.power, now.ready), (PowerState::Running, expected));
    }
}

#[test]
fn a_paused_vm_keeps_what_is_known_of_it_and_is_not_started() {
    let address = Some(std::net::Ipv4Addr::new(10, 0, 0, 9).into());
    let known = observe(&existing(), ObservedVmState::running(true, address));
    for reason in [PauseReason::User, PauseReason::IoError, PauseReason::Other] {
        let paused = found(&known, PowerState::Paused(reason), false);
        let decisions = decided(&known, std::slice::from_ref(&paused), OperationStatus::Done);
        let [ReconcileAction::RecordObservation(_, _, now)] = &decisions[..] else {
            panic!("{decisions:?}");
        };
        let expected =
            ObservedVmState { power: PowerState::Paused(reason), ..ObservedVmState::running(true, address) };
        assert_eq!(*now, expected);
        let paused_record = observe(&known, *now);
        assert_eq!(decided(&paused_record, &[paused], OperationStatus::Done), [], "{reason:?}: it waits");
        let resumed =
            decided(&paused_record, &[found(&known, PowerState::Running, true)], OperationStatus::Done);
        assert!(
            matches!(&resumed[..], [ReconcileAction::RecordObservation(_, _, now)] if *now == ObservedVmState::running(true, address)),
            "{resumed:?}"
        );
    }
}

#[test]
fn a_vm_paused_for_lack_of_space_is_resumed_when_there_is_room_and_it_should_run() {
    let paused = PowerState::Paused(PauseReason::NoSpace);
    let known =
        observe(&existing(), ObservedVmState { power: paused, ..ObservedVmState::running(true, None) });
    let (name, uuid) = (known.name().clone(), known.identity.uuid.clone());
    let seen = [found(&known, paused, false)];
    let decisions = |record: &VmRecord, room| decide([record], &seen, &|_| OperationStatus::Done, room);
    assert_eq!(decisions(&known, false), []);
    assert_eq!(decisions(&known, true), [ReconcileAction::ResumeVm(name, uuid)]);
    let by = OperationId::from_bits(3);
    let reading =
        known.apply(VmTransition::Begin { by: by.clone(), kind: VmLockKind::ReadingDisks }).expect("free");
    assert_eq!(decisions(&reading, true).len(), 1, "its reader waits for it");
    let stopping = known.apply(VmTransition::Begin { by, kind: VmLockKind::Stopping }).expect("free");
    let decided = decide([&stopping], &seen, &|_| OperationStatus::Running, true);
    assert_eq!(decided, [], "its operation decides");
}

#[test]
fn an_unknown_vm_is_only_removed_when_an_undone_operation_of_ours_left_it() {
    let known = existing();
    let mut unknown = found(&known, PowerState::Off, false);
    unknown.uuid = VmUuid::new("00000000-0000-4000-8000-0000000000ff").expect("a UUID");
    let ours = found(&known, PowerState::Running, true);
    for outcome in [
        OperationStatus::NoSuchOperation,
        OperationStatus::Running,
        OperationStatus::Done,
        OperationStatus::Stuck,
    ] {
        let decisions = decide([&known], &[ours.clone(), unknown.clone()], &|_| outcome, true);
        assert!(decisions.contains(&ReconcileAction::ReportOrphanVm(unknown.clone())), "{outcome:?}");
    }
    let decisions = decide([&known], &[ours, unknown.clone()], &|_| OperationStatus::Undone, true);
    assert!(decisions.contains(&ReconcileAction::RemoveLeftoverVm(unknown)));
}
