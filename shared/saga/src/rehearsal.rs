//! The three tests that every saga passes: each step twice, failure at each step, a crash after each record. For
//! tests only; it needs no runtime of its own beyond what the steps need.

use std::time::Duration;

use serde_json::Value;

use crate::drive::{Ledger, Lost, drive};
use crate::journal::{Ending, Journal};
use crate::step::{Step, StepFuture, Trouble};

/// A ledger in memory that can crash at a record and fail a step before or after it acted.
struct StageLedger {
    saved: Journal,
    records: usize,
    crash_at: Option<usize>,
    fail: Option<(&'static str, When)>,
}

#[derive(Clone, Copy, PartialEq)]
enum When {
    Before,
    After,
}

impl Ledger for StageLedger {
    async fn record(&mut self, journal: &Journal) -> Result<(), Lost> {
        self.records += 1;
        if self.crash_at == Some(self.records) {
            return Err(Lost);
        }
        self.saved = journal.clone();
        Ok(())
    }

    async fn pause(&mut self, _: Duration) {}

    async fn within<'a>(
        &'a mut self,
        _limit: Duration,
        step: &'static str,
        work: StepFuture<'a>,
    ) -> Option<Result<Value, Trouble>> {
        let failure = || Some(Err(Trouble::Final("failed on purpose".into())));
        match self.fail {
            Some((name, When::Before)) if name == step => {
                self.fail = None;
                failure()
            }
            Some((name, When::After)) if name == step => {
                self.fail = None;
                match work.await {
                    Ok(_) => failure(),
                    trouble => Some(trouble),
                }
            }
            _ => Some(work.await),
        }
    }

    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Puts a saga through every crash and every failure. `fresh` makes a world; `judge` looks at it after the end and
/// says what is wrong, given how the saga ended. Panics with the case and the complaint.
pub async fn rehearse<C: Sync>(
    steps: &[Step<C>],
    fresh: impl AsyncFn() -> C,
    judge: impl AsyncFn(&C, &Ending) -> Result<(), String>,
) {
    let show = async |case: String, crash_at: Option<usize>, fail: Option<(&'static str, When)>| {
        let context = fresh().await;
        let mut ledger = StageLedger { saved: Journal::default(), records: 0, crash_at, fail };
        let mut journal = Journal::default();
        let mut ending = drive(steps, &context, &mut journal, &mut ledger).await;
        if ending == Err(Lost) {
            // The process is started again and reads what was saved last.
            ledger.crash_at = None;
            journal = ledger.saved.clone();
            ending = drive(steps, &context, &mut journal, &mut ledger).await;
        }
        let ending = ending.unwrap_or_else(|_| panic!("{case}: lost twice"));
        if let Ending::Stuck(why) = &ending {
            panic!("{case}: stuck: {why}");
        }
        if fail.is_some() {
            assert!(matches!(ending, Ending::Undone(_)), "{case}: ended {ending:?}");
        } else {
            assert_eq!(ending, Ending::Done, "{case}");
        }
        if let Err(complaint) = judge(&context, &ending).await {
            panic!("{case}: {complaint}");
        }
        ledger.records
    };
    let records = show("all goes well".into(), None, None).await;
    for at in 1..=records {
        show(format!("crash at record {at} of {records}"), Some(at), None).await;
    }
    for step in steps {
        for (when, word) in [(When::Before, "before"), (When::After, "after")] {
            let fail = Some((step.name, when));
            let records = show(format!("{} fails {word} it acts", step.name), None, fail).await;
            for at in 1..=records {
                let case = format!("{} fails {word} it acts, crash at record {at} of {records}", step.name);
                show_after_failure(steps, &fresh, &judge, case, at, fail).await;
            }
        }
    }
}

/// A failure and a crash in one performance: it may end done (the crash came before the failure was written down
/// and the step succeeded when repeated) or as before, nothing else.
async fn show_after_failure<C: Sync>(
    steps: &[Step<C>],
    fresh: &impl AsyncFn() -> C,
    judge: &impl AsyncFn(&C, &Ending) -> Result<(), String>,
    case: String,
    crash_at: usize,
    fail: Option<(&'static str, When)>,
) {
    let context = fresh().await;
    let mut ledger = StageLedger { saved: Journal::default(), records: 0, crash_at: Some(crash_at), fail };
    let mut journal = Journal::default();
    if drive(steps, &context, &mut journal, &mut ledger).await == Err(Lost) {
        ledger.crash_at = None;
        journal = ledger.saved.clone();
    }
    match drive(steps, &context, &mut journal, &mut ledger).await {
        Ok(Ending::Stuck(why)) => panic!("{case}: stuck: {why}"),
        Ok(ending) => {
            if let Err(complaint) = judge(&context, &ending).await {
                panic!("{case}: {complaint}");
            }
        }
        Err(Lost) => panic!("{case}: lost twice"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use super::*;
    use crate::step::{Trail, output};

    type World = Mutex<BTreeSet<&'static str>>;

    fn put<'a>(world: &'a World, _: &'a Trail<'a>) -> StepFuture<'a> {
        Box::pin(async move {
            world.lock().expect("no panic").insert("disk");
            output(&1)
        })
    }
    fn take<'a>(world: &'a World, _: &'a Trail<'a>) -> StepFuture<'a> {
        Box::pin(async move {
            world.lock().expect("no panic").remove("disk");
            output(&())
        })
    }
    fn start<'a>(world: &'a World, trail: &'a Trail<'a>) -> StepFuture<'a> {
        Box::pin(async move {
            trail.of::<u32>("put")?;
            world.lock().expect("no panic").insert("domain");
            output(&())
        })
    }
    fn stop<'a>(world: &'a World, _: &'a Trail<'a>) -> StepFuture<'a> {
        Box::pin(async move {
            world.lock().expect("no panic").remove("domain");
            output(&())
        })
    }

    const STEPS: [Step<World>; 2] = [
        Step::new("put", Duration::from_secs(1), put).undone_by(take),
        Step::new("start", Duration::from_secs(1), start).undone_by(stop),
    ];

    #[test]
    fn a_sound_saga_passes() {
        futures::executor::block_on(rehearse(
            &STEPS,
            async || World::default(),
            async |world, ending| {
                let left = world.lock().expect("no panic").len();
                match (ending, left) {
                    (Ending::Done, 2) | (Ending::Undone(_), 0) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            },
        ));
    }

    #[test]
    #[should_panic(expected = "start fails after it acts")]
    fn a_saga_that_forgets_an_undo_is_caught() {
        const FORGETFUL: [Step<World>; 2] = [
            Step::new("put", Duration::from_secs(1), put).undone_by(take),
            Step::new("start", Duration::from_secs(1), start),
        ];
        futures::executor::block_on(rehearse(
            &FORGETFUL,
            async || World::default(),
            async |world, ending| match (ending, world.lock().expect("no panic").len()) {
                (Ending::Done, 2) | (Ending::Undone(_), 0) => Ok(()),
                other => Err(format!("{other:?}")),
            },
        ));
    }
}
