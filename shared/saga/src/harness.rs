//! The tests that every saga passes: each step twice, a failure at each step, a crash after each record. For tests
//! only; it needs no async runtime beyond what the steps need.

use std::time::Duration;

use serde_json::Value;

use crate::drive::{FencedError, Runtime, drive};
use crate::journal::{Journal, SagaOutcome};
use crate::step::{Step, StepError, StepFuture};

/// Keeps the journal in memory; can crash at a record and fail a step before or after its act.
struct TestRuntime {
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

impl Runtime for TestRuntime {
    async fn record(&mut self, journal: &Journal) -> Result<(), FencedError> {
        self.records += 1;
        if self.crash_at == Some(self.records) {
            return Err(FencedError);
        }
        self.saved = journal.clone();
        Ok(())
    }

    async fn pause(&mut self, _: Duration) {}

    async fn within<'a>(
        &'a mut self,
        _timeout: Duration,
        step: &'static str,
        work: StepFuture<'a>,
    ) -> Option<Result<Value, StepError>> {
        let failure = || Some(Err(StepError::Permanent("failed on purpose".into())));
        match self.fail {
            Some((name, When::Before)) if name == step => {
                self.fail = None;
                failure()
            }
            Some((name, When::After)) if name == step => {
                self.fail = None;
                match work.await {
                    Ok(_) => failure(),
                    error => Some(error),
                }
            }
            _ => Some(work.await),
        }
    }

    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Runs a saga through every crash and every failure. `fresh` makes a new context; `judge` inspects it after the end,
/// knows the outcome, and returns what is wrong. Panics with the case and the reason.
pub async fn check<C: Sync + 'static>(
    steps: &[Step<C>],
    fresh: impl AsyncFn() -> C,
    judge: impl AsyncFn(&C, &SagaOutcome) -> Result<(), String>,
) {
    let run = async |case: String, crash_at: Option<usize>, fail: Option<(&'static str, When)>| {
        let context = fresh().await;
        let mut runtime = TestRuntime { saved: Journal::default(), records: 0, crash_at, fail };
        let mut journal = Journal::default();
        let mut outcome = drive(steps, &context, &mut journal, &mut runtime).await;
        if outcome == Err(FencedError) {
            // The process is started again and reads what was saved last.
            runtime.crash_at = None;
            journal = runtime.saved.clone();
            outcome = drive(steps, &context, &mut journal, &mut runtime).await;
        }
        let outcome = outcome.unwrap_or_else(|_| panic!("{case}: fenced twice"));
        if let SagaOutcome::Stuck(why) = &outcome {
            panic!("{case}: stuck: {why}; {journal:?}");
        }
        if fail.is_some() {
            assert!(matches!(outcome, SagaOutcome::Undone(_)), "{case}: ended {outcome:?}");
        } else {
            assert_eq!(outcome, SagaOutcome::Done, "{case}");
        }
        if let Err(wrong) = judge(&context, &outcome).await {
            panic!("{case}: {wrong}");
        }
        runtime.records
    };
    let records = run("no failure".into(), None, None).await;
    for at in 1..=records {
        run(format!("crash at record {at} of {records}"), Some(at), None).await;
    }
    for step in steps {
        for (when, text) in [(When::Before, "before"), (When::After, "after")] {
            let fail = Some((step.name, when));
            let records = run(format!("{} fails {text} it acts", step.name), None, fail).await;
            for at in 1..=records {
                let case = format!("{} fails {text} it acts, crash at record {at} of {records}", step.name);
                run_after_failure(steps, &fresh, &judge, case, at, fail).await;
            }
        }
    }
}

/// A failure and a crash in one run: it may end done (the crash came before the failure was recorded, and the step
/// succeeded when repeated) or as before, nothing else.
async fn run_after_failure<C: Sync + 'static>(
    steps: &[Step<C>],
    fresh: &impl AsyncFn() -> C,
    judge: &impl AsyncFn(&C, &SagaOutcome) -> Result<(), String>,
    case: String,
    crash_at: usize,
    fail: Option<(&'static str, When)>,
) {
    let context = fresh().await;
    let mut runtime = TestRuntime { saved: Journal::default(), records: 0, crash_at: Some(crash_at), fail };
    let mut journal = Journal::default();
    if drive(steps, &context, &mut journal, &mut runtime).await == Err(FencedError) {
        runtime.crash_at = None;
        journal = runtime.saved.clone();
    }
    match drive(steps, &context, &mut journal, &mut runtime).await {
        Ok(SagaOutcome::Stuck(why)) => panic!("{case}: stuck: {why}"),
        Ok(outcome) => {
            if let Err(wrong) = judge(&context, &outcome).await {
                panic!("{case}: {wrong}");
            }
        }
        Err(FencedError) => panic!("{case}: fenced twice"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use super::*;
    use crate::step::Outputs;

    type Host = Mutex<BTreeSet<&'static str>>;

    async fn create_disk(host: &Host, _: &Outputs) -> Result<u32, StepError> {
        host.lock().expect("no panic").insert("disk");
        Ok(1)
    }
    async fn delete_disk(host: &Host, _: &Outputs) -> Result<(), StepError> {
        host.lock().expect("no panic").remove("disk");
        Ok(())
    }
    async fn start(host: &Host, outputs: &Outputs) -> Result<(), StepError> {
        outputs.get::<u32>("create_disk")?;
        host.lock().expect("no panic").insert("domain");
        Ok(())
    }
    async fn stop(host: &Host, _: &Outputs) -> Result<(), StepError> {
        host.lock().expect("no panic").remove("domain");
        Ok(())
    }

    fn disk() -> Step<Host> {
        Step::new("create_disk", Duration::from_secs(1), create_disk).undone_by(delete_disk)
    }

    async fn all_or_nothing(host: &Host, outcome: &SagaOutcome) -> Result<(), String> {
        match (outcome, host.lock().expect("no panic").len()) {
            (SagaOutcome::Done, 2) | (SagaOutcome::Undone(_), 0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn a_sound_saga_passes() {
        let steps = [disk(), Step::new("start", Duration::from_secs(1), start).undone_by(stop)];
        futures::executor::block_on(check(&steps, async || Host::default(), all_or_nothing));
    }

    #[test]
    #[should_panic(expected = "start fails after it acts")]
    fn a_saga_that_lacks_an_undo_is_caught() {
        let steps = [disk(), Step::new("start", Duration::from_secs(1), start)];
        futures::executor::block_on(check(&steps, async || Host::default(), all_or_nothing));
    }
}
