//! When a new build has proven itself.
//!
//! ```text
//!   nothing seen --answers, well--> soaking --well for the whole soak--> proven
//!        |                            |
//!        | not well in time           | another run answers, another build, not well, started again
//!        +-----------> failed <-------+
//! ```

use std::time::Duration;

use contract::operation::Health;

/// What is seen of a service at one moment.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// How it answers; nothing where it does not.
    pub health: Option<Health>,
    /// How often its supervisor had to start it again; nothing where the supervisor does not say.
    pub restarts: Option<u32>,
}

/// What follows from what was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Look again a little later.
    Wait,
    /// It runs, is well and stayed so.
    Proven,
    /// It will not do, for this reason.
    Failed(String),
}

/// Watches a new build from the moment that it was started.
#[derive(Clone, Debug)]
pub struct Proof {
    build: String,
    ready_within: Duration,
    soak: Duration,
    /// The run that answered first.
    instance: Option<String>,
    restarts: Option<u32>,
    well_since: Option<Duration>,
}

impl Proof {
    /// Begins to watch a build that must be well within a time and stay so for another.
    pub fn of(build: impl Into<String>, ready_within: Duration, soak: Duration) -> Proof {
        Proof { build: build.into(), ready_within, soak, instance: None, restarts: None, well_since: None }
    }

    /// Takes in what is seen, so long after the start.
    pub fn see(&mut self, after: Duration, seen: &Seen) -> Verdict {
        if let (Some(before), Some(now)) = (self.restarts, seen.restarts)
            && now > before
        {
            return Verdict::Failed("it died and was started again".into());
        }
        self.restarts = self.restarts.or(seen.restarts);
        if let Some(health) = &seen.health {
            if health.build != self.build {
                let reason = format!("build {} answers in place of {}", health.build, self.build);
                return Verdict::Failed(reason);
            }
            if self.instance.as_ref().is_some_and(|first| *first != health.instance) {
                return Verdict::Failed("it died and another run of it answers".into());
            }
            self.instance = Some(health.instance.clone());
        }
        let trouble = trouble(seen.health.as_ref());
        match (trouble, self.well_since) {
            (None, None) if self.soak.is_zero() => Verdict::Proven,
            (None, None) => {
                self.well_since = Some(after);
                Verdict::Wait
            }
            (None, Some(since)) if after.saturating_sub(since) >= self.soak => Verdict::Proven,
            (None, Some(_)) => Verdict::Wait,
            (Some(trouble), Some(_)) => Verdict::Failed(format!("it was ready, and then: {trouble}")),
            (Some(trouble), None) if after >= self.ready_within => {
                let seconds = self.ready_within.as_secs();
                Verdict::Failed(format!("it was not ready within {seconds} s: {trouble}"))
            }
            (Some(_), None) => Verdict::Wait,
        }
    }
}

fn trouble(health: Option<&Health>) -> Option<String> {
    let Some(health) = health else {
        return Some("it does not answer".into());
    };
    let ill = health.parts.iter().find_map(|part| Some((&part.part, part.trouble.as_ref()?)));
    ill.map(|(part, trouble)| format!("{part}: {trouble}"))
}

#[cfg(test)]
mod tests {
    use contract::Service;
    use contract::operation::PartHealth;

    use super::*;

    const READY: Duration = Duration::from_secs(60);
    const SOAK: Duration = Duration::from_secs(5);

    fn well(build: &str, instance: &str) -> Seen {
        let health = Health {
            service: Service::Proxy,
            version: "1.0.0".into(),
            build: build.into(),
            instance: instance.into(),
            since: chrono::DateTime::UNIX_EPOCH,
            parts: vec![PartHealth { part: "listener".into(), trouble: None }],
        };
        Seen { health: Some(health), restarts: Some(3) }
    }

    fn ill(build: &str, instance: &str) -> Seen {
        let mut seen = well(build, instance);
        if let Some(health) = &mut seen.health {
            health.parts[0].trouble = Some("the address is in use".into());
        }
        seen
    }

    fn silent() -> Seen {
        Seen { health: None, restarts: Some(3) }
    }

    /// What is said at the last of some sights, a second apart; nothing but waiting before.
    fn verdict(sights: &[Seen]) -> Verdict {
        let mut proof = Proof::of("new", READY, SOAK);
        let (last, before) = sights.split_last().expect("some");
        for (second, seen) in before.iter().enumerate() {
            assert_eq!(proof.see(Duration::from_secs(second as u64), seen), Verdict::Wait);
        }
        proof.see(Duration::from_secs(before.len() as u64), last)
    }

    fn failed(sights: &[Seen], why: &str) {
        match verdict(sights) {
            Verdict::Failed(reason) => assert!(reason.contains(why), "{reason}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_build_that_stays_well_for_the_whole_soak_is_proven() {
        let mut sights = vec![silent(), silent(), ill("new", "a")];
        sights.extend((0..5).map(|_| well("new", "a")));
        assert_eq!(verdict(&sights), Verdict::Wait);
        sights.push(well("new", "a"));
        assert_eq!(verdict(&sights), Verdict::Proven);
    }

    #[test]
    fn a_build_that_never_gets_ready_has_failed_when_its_time_is_over() {
        failed(&vec![silent(); 61], "does not answer");
        failed(&vec![ill("new", "a"); 61], "the address is in use");
    }

    #[test]
    fn a_build_that_dies_has_failed_at_once() {
        let mut restarted = silent();
        restarted.restarts = Some(4);
        failed(&[silent(), restarted], "started again");
        failed(&[well("new", "a"), well("new", "b")], "another run");
        failed(&[well("new", "a"), silent()], "was ready, and then");
        failed(&[well("new", "a"), ill("new", "a")], "was ready, and then");
    }

    #[test]
    fn another_build_that_answers_is_a_failure() {
        failed(&[silent(), well("old", "a")], "build old answers");
    }
}
