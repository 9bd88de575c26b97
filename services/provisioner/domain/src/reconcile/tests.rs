use super::*;
use crate::vm::tests::{fresh, living};

fn running(answers: bool) -> ObservedPower {
    ObservedPower::Running { address: Some(std::net::Ipv4Addr::new(10, 0, 0, 9).into()), answers }
}

fn observed(record: &VmRecord, power: ObservedPower) -> Observed {
    Observed {
        uuid: record.identity.uuid.clone(),
        vm: record.name().to_string(),
        operation: OperationId::from_bits(2).to_string(),
        power,
    }
}

fn decided(record: &VmRecord, observed: &[Observed], fate: Fate) -> Vec<Decision> {
    decide([record], observed, &|_| fate)
}

#[test]
fn where_all_is_well_nothing_is_done() {
    let known = living();
    let seen = observed(&known, running(true));
    let [Decision::See(_, before, now)] = &decided(&known, std::slice::from_ref(&seen), Fate::Done)[..]
    else {
        panic!("its address is news");
    };
    let known = known.saw(*before, *now);
    assert_eq!(decided(&known, &[seen], Fate::Done), []);
}

#[test]
fn a_machine_that_went_off_is_said_to_be_off_and_started_again() {
    let known = living();
    let name = known.name().clone();
    let Phase::Living { seen, .. } = known.phase else {
        panic!("it lives");
    };
    assert_eq!(
        decided(&known, &[observed(&known, ObservedPower::Off)], Fate::Done),
        [Decision::See(name.clone(), seen, Seen::Off), Decision::Start(name)]
    );
}

#[test]
fn a_missing_machine_is_said_to_be_missing_and_nothing_is_erased_or_made() {
    let known = living();
    let decisions = decided(&known, &[], Fate::Done);
    assert!(matches!(&decisions[..], [Decision::See(_, _, Seen::Missing)]), "{decisions:?}");
}

#[test]
fn a_machine_at_which_an_operation_works_is_left_to_it() {
    let creating = fresh();
    for fate in [Fate::UnderWay, Fate::Unknown] {
        for seen in [vec![], vec![observed(&creating, ObservedPower::Off)]] {
            assert_eq!(decided(&creating, &seen, fate), []);
        }
    }
    let by = OperationId::from_bits(2);
    assert_eq!(
        decided(&creating, &[], Fate::Stuck),
        [Decision::Release(creating.name().clone(), by, Seen::Missing)]
    );
}

#[test]
fn a_running_machine_is_ready_once_it_answers_and_stays_it_without_being_asked() {
    let known = living();
    let Phase::Living { seen, .. } = known.phase else {
        panic!("it lives");
    };
    let off = known.saw(seen, Seen::Off);
    for (answers, expected) in [(false, false), (true, true)] {
        let decisions = decided(&off, &[observed(&off, running(answers))], Fate::Done);
        let [Decision::See(_, _, Seen::Running { ready, .. })] = &decisions[..] else {
            panic!("{decisions:?}");
        };
        assert_eq!(*ready, expected);
    }
}

#[test]
fn a_stranger_is_only_removed_when_our_own_undone_operation_left_it() {
    let known = living();
    let mut stranger = observed(&known, ObservedPower::Off);
    stranger.uuid = "other".into();
    let here = observed(&known, running(true));
    for fate in [Fate::Unknown, Fate::UnderWay, Fate::Done, Fate::Stuck] {
        let decisions = decide([&known], &[here.clone(), stranger.clone()], &|_| fate);
        assert!(decisions.contains(&Decision::Report(stranger.clone())), "{fate:?}");
    }
    let decisions = decide([&known], &[here.clone(), stranger.clone()], &|_| Fate::Undone);
    assert!(decisions.contains(&Decision::Clean(stranger.clone())));
    stranger.operation = "somebody else's".into();
    let decisions = decide([&known], &[here, stranger.clone()], &|_| Fate::Undone);
    assert!(decisions.contains(&Decision::Report(stranger)));
}
