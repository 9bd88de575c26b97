//! Whether a new build is healthy.
//!
//! ```text
//!   no answer --answers, healthy--> soaking --healthy for the whole soak--> healthy
//!        |                            |
//!        | not healthy in time        | another instance, build or version answers, a problem, restarted
//!        +-----------> failed <-------+
//! ```
//!
//! Time counts from the start of the build, whoever watches: a watch that begins late, because its process died, has no
//! more of it. A build that is first seen healthy when the time is over has failed.
//!
//! A part that had a problem before the replacement decides nothing: the new build did not cause it, and the build
//! before would not be better.

use std::time::Duration;

use contract::health::Health;

/// What is observed of a service at one moment.
#[derive(Clone, Debug, Default)]
pub struct HealthObservation {
    /// Its health; absent where it does not answer.
    pub health: Option<Health>,
    /// How often its supervisor had to start it again; absent where the supervisor does not answer.
    pub restarts: Option<u32>,
}

/// What follows from what was observed so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthVerdict {
    /// Not decided: observe again a little later.
    Undecided,
    /// It became healthy in time and stayed so for its soak.
    Healthy,
    /// It is not usable, for this reason.
    Failed(String),
}

/// Watches a new build from the moment that it was started.
#[derive(Clone, Debug)]
pub struct HealthWatch {
    build: String,
    /// What its signed manifest says; absent where none is known.
    version: Option<String>,
    /// The parts that had a problem before.
    degraded_before: Vec<String>,
    ready_within: Duration,
    soak: Duration,
    /// The instance that answered first.
    instance: Option<String>,
    restarts: Option<u32>,
    healthy_since: Option<Duration>,
}

impl HealthWatch {
    /// Begins to watch a build that must be healthy within a time and stay so for another.
    pub fn new(build: impl Into<String>, ready_within: Duration, soak: Duration) -> HealthWatch {
        HealthWatch {
            build: build.into(),
            version: None,
            degraded_before: Vec::new(),
            ready_within,
            soak,
            instance: None,
            restarts: None,
            healthy_since: None,
        }
    }

    /// Ignores parts that had a problem before the build was started.
    pub fn ignoring(mut self, degraded_before: Vec<String>) -> HealthWatch {
        self.degraded_before = degraded_before;
        self
    }

    /// Fails a build that reports another version than this one.
    pub fn expecting_version(mut self, version: impl Into<String>) -> HealthWatch {
        self.version = Some(version.into());
        self
    }

    /// Counts restarts from a number that was observed when the build was started.
    pub fn counting_restarts_from(mut self, restarts: Option<u32>) -> HealthWatch {
        self.restarts = restarts;
        self
    }

    /// Takes in what was observed, so long after the start.
    pub fn observe(&mut self, after: Duration, observed: &HealthObservation) -> HealthVerdict {
        if let (Some(before), Some(now)) = (self.restarts, observed.restarts)
            && now > before
        {
            return HealthVerdict::Failed("it died and was started again".into());
        }
        self.restarts = self.restarts.or(observed.restarts);
        if let Some(health) = &observed.health {
            if health.build != self.build {
                let reason = format!("build {} answers instead of {}", health.build, self.build);
                return HealthVerdict::Failed(reason);
            }
            if let Some(version) = &self.version
                && health.version != *version
            {
                let reported = &health.version;
                let reason = format!("it reports version {reported}, its signed manifest says {version}");
                return HealthVerdict::Failed(reason);
            }
            if self.instance.as_ref().is_some_and(|first| *first != health.instance) {
                return HealthVerdict::Failed("it died and another instance answers".into());
            }
            self.instance = Some(health.instance.clone());
        }
        let late = after >= self.ready_within;
        match (self.problem(observed.health.as_ref()), self.healthy_since) {
            (None, None) if late => self.not_ready("it was not observed before"),
            (None, None) if self.soak.is_zero() => HealthVerdict::Healthy,
            (None, None) => {
                self.healthy_since = Some(after);
                HealthVerdict::Undecided
            }
            (None, Some(since)) if after.saturating_sub(since) >= self.soak => HealthVerdict::Healthy,
            (None, Some(_)) => HealthVerdict::Undecided,
            (Some(problem), Some(_)) => HealthVerdict::Failed(format!("it was ready, and then: {problem}")),
            (Some(problem), None) if late => self.not_ready(&problem),
            (Some(_), None) => HealthVerdict::Undecided,
        }
    }

    fn not_ready(&self, problem: &str) -> HealthVerdict {
        let seconds = self.ready_within.as_secs();
        HealthVerdict::Failed(format!("it was not ready within {seconds} s: {problem}"))
    }

    fn problem(&self, health: Option<&Health>) -> Option<String> {
        let Some(health) = health else {
            return Some("it does not answer".into());
        };
        let mut decisive = health.parts.iter().filter(|part| !self.degraded_before.contains(&part.part));
        decisive.find_map(|part| Some(format!("{}: {}", part.part, part.problem.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use contract::Service;
    use contract::health::PartHealth;

    use super::*;

    const READY: Duration = Duration::from_secs(60);
    const SOAK: Duration = Duration::from_secs(5);

    fn healthy(build: &str, instance: &str) -> HealthObservation {
        let health = Health {
            service: Service::Proxy,
            version: "1.0.0".into(),
            build: build.into(),
            instance: instance.into(),
            since: chrono::DateTime::UNIX_EPOCH,
            parts: vec![PartHealth { part: "listener".into(), problem: None }],
            notices: Vec::new(),
        };
        HealthObservation { health: Some(health), restarts: Some(3) }
    }

    fn unhealthy(build: &str, instance: &str) -> HealthObservation {
        let mut observed = healthy(build, instance);
        if let Some(health) = &mut observed.health {
            health.parts[0].problem = Some("the address is in use".into());
        }
        observed
    }

    fn silent() -> HealthObservation {
        HealthObservation { health: None, restarts: Some(3) }
    }

    /// The verdict on the last of some observations, a second apart; all before it are undecided.
    fn verdict(observations: &[HealthObservation]) -> HealthVerdict {
        let mut watch = HealthWatch::new("new", READY, SOAK);
        let (last, before) = observations.split_last().expect("some");
        for (second, observed) in before.iter().enumerate() {
            assert_eq!(watch.observe(Duration::from_secs(second as u64), observed), HealthVerdict::Undecided);
        }
        watch.observe(Duration::from_secs(before.len() as u64), last)
    }

    fn failed(observations: &[HealthObservation], why: &str) {
        match verdict(observations) {
            HealthVerdict::Failed(reason) => assert!(reason.contains(why), "{reason}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_build_that_stays_healthy_for_the_whole_soak_is_healthy() {
        let mut observations = vec![silent(), silent(), unhealthy("new", "a")];
        observations.extend((0..5).map(|_| healthy("new", "a")));
        assert_eq!(verdict(&observations), HealthVerdict::Undecided);
        observations.push(healthy("new", "a"));
        assert_eq!(verdict(&observations), HealthVerdict::Healthy);
    }

    #[test]
    fn a_build_that_never_gets_ready_has_failed_when_its_time_is_over() {
        failed(&vec![silent(); 61], "does not answer");
        failed(&vec![unhealthy("new", "a"); 61], "the address is in use");
    }

    #[test]
    fn a_problem_that_was_there_before_does_not_fail_a_build() {
        let mut watch = HealthWatch::new("new", READY, SOAK).ignoring(vec!["listener".into()]);
        assert_eq!(watch.observe(Duration::ZERO, &unhealthy("new", "a")), HealthVerdict::Undecided);
        assert_eq!(watch.observe(SOAK, &unhealthy("new", "a")), HealthVerdict::Healthy);
        let mut watch = HealthWatch::new("new", READY, SOAK).ignoring(vec!["store".into()]);
        assert!(matches!(watch.observe(READY, &unhealthy("new", "a")), HealthVerdict::Failed(_)));
    }

    #[test]
    fn a_build_that_dies_has_failed_at_once() {
        let mut restarted = silent();
        restarted.restarts = Some(4);
        failed(&[silent(), restarted], "started again");
        failed(&[healthy("new", "a"), healthy("new", "b")], "another instance");
        failed(&[healthy("new", "a"), silent()], "was ready, and then");
        failed(&[healthy("new", "a"), unhealthy("new", "a")], "was ready, and then");
    }

    #[test]
    fn a_watch_that_begins_late_has_no_more_time() {
        for (after, restarted_in_soak) in [(READY, false), (READY * 2, false), (READY + SOAK / 2, true)] {
            let mut watch = HealthWatch::new("new", READY, SOAK);
            if restarted_in_soak {
                let before = READY - SOAK / 2;
                assert_eq!(watch.observe(before, &healthy("new", "a")), HealthVerdict::Undecided);
                watch = HealthWatch::new("new", READY, SOAK);
            }
            match watch.observe(after, &healthy("new", "a")) {
                HealthVerdict::Failed(reason) => {
                    assert!(reason.contains("not ready within 60 s"), "{reason}")
                }
                other => panic!("{after:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_death_before_the_watch_began_is_a_failure() {
        let mut watch = HealthWatch::new("new", READY, SOAK).counting_restarts_from(Some(2));
        match watch.observe(Duration::ZERO, &healthy("new", "a")) {
            HealthVerdict::Failed(reason) => assert!(reason.contains("started again"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn another_version_than_the_signed_one_is_a_failure() {
        let watch = || HealthWatch::new("new", READY, Duration::ZERO);
        let observed = healthy("new", "a");
        assert_eq!(
            watch().expecting_version("1.0.0").observe(Duration::ZERO, &observed),
            HealthVerdict::Healthy
        );
        match watch().expecting_version("9.9.9").observe(Duration::ZERO, &observed) {
            HealthVerdict::Failed(reason) => assert!(reason.contains("1.0.0") && reason.contains("9.9.9")),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn another_build_that_answers_is_a_failure() {
        failed(&[silent(), healthy("old", "a")], "build old answers");
    }
}
