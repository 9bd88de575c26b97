//! Retention policies.

use std::num::NonZero;

use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use super::{Count, Rule, Span};

/// The newest few are kept whatever the rules say: a protection against a wrong clock or rule.
const MINIMUM_DEFAULT: NonZero<u32> = NonZero::new(3).expect("three is not zero");

/// A policy as a person writes it, in a file or as options. [`Policy`] is one that was checked.
///
/// A snapshot is kept when one of the rules matches. A rule that is left out is not used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// The newest ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_last: Option<Count>,
    /// The last of each of so many hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_hourly: Option<Count>,
    /// The last of each of so many days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_daily: Option<Count>,
    /// The last of each of so many ISO weeks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_weekly: Option<Count>,
    /// The last of each of so many months.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_monthly: Option<Count>,
    /// The last of each of so many years.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_yearly: Option<Count>,
    /// All that are younger than this when the machine's newest snapshot was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_within: Option<Span>,
    /// All that have one of these tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keep_tags: Vec<String>,
    /// So many of each machine's newest are kept in any case; 3 unless written.
    pub keep_minimum: NonZero<u32>,
    /// The IANA time zone whose hours, days, weeks, months and years are meant; UTC unless written.
    #[serde(with = "zone")]
    pub time_zone: Tz,
    /// Only these machines; all when empty. Snapshots of others are out of scope.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only_machines: Vec<String>,
    /// Only snapshots that have all of these tags; others are out of scope.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only_tags: Vec<String>,
}

impl Default for Rules {
    /// Nothing to keep, which no [`Policy`] accepts: a start to add rules to.
    fn default() -> Rules {
        Rules {
            keep_last: None,
            keep_hourly: None,
            keep_daily: None,
            keep_weekly: None,
            keep_monthly: None,
            keep_yearly: None,
            keep_within: None,
            keep_tags: Vec::new(),
            keep_minimum: MINIMUM_DEFAULT,
            time_zone: Tz::UTC,
            only_machines: Vec::new(),
            only_tags: Vec::new(),
        }
    }
}

/// The rules are not a valid policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPolicy {
    /// No rule keeps anything, which can only be a mistake.
    #[error("the policy keeps nothing: give at least one keep rule")]
    NothingToKeep,
    /// An empty name.
    #[error("{field} has an empty name")]
    EmptyTagOrMachine {
        /// The list that has it.
        field: &'static str,
    },
}

/// Rules that were checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Rules", into = "Rules")]
pub struct Policy(Rules);

impl Policy {
    /// The rules as written.
    pub fn rules(&self) -> &Rules {
        &self.0
    }

    /// The rules that count, as far as they are used.
    pub(super) fn counted(&self) -> impl Iterator<Item = (Rule, Count)> {
        let Rules { keep_last, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly, .. } = self.0;
        let all = [
            (Rule::Last, keep_last),
            (Rule::Hourly, keep_hourly),
            (Rule::Daily, keep_daily),
            (Rule::Weekly, keep_weekly),
            (Rule::Monthly, keep_monthly),
            (Rule::Yearly, keep_yearly),
        ];
        all.into_iter().filter_map(|(rule, count)| Some((rule, count?)))
    }
}

impl TryFrom<Rules> for Policy {
    type Error = BadPolicy;

    fn try_from(rules: Rules) -> Result<Policy, BadPolicy> {
        let lists = [
            ("keep_tags", &rules.keep_tags),
            ("only_machines", &rules.only_machines),
            ("only_tags", &rules.only_tags),
        ];
        if let Some((field, _)) =
            lists.iter().find(|(_, names)| names.iter().any(|name| name.trim().is_empty()))
        {
            return Err(BadPolicy::EmptyTagOrMachine { field });
        }
        let policy = Policy(rules);
        let keeps = policy.counted().next().is_some()
            || policy.0.keep_within.is_some()
            || !policy.0.keep_tags.is_empty();
        if keeps { Ok(policy) } else { Err(BadPolicy::NothingToKeep) }
    }
}

impl From<Policy> for Rules {
    fn from(policy: Policy) -> Rules {
        policy.0
    }
}

/// A time zone by its IANA name.
mod zone {
    use chrono_tz::Tz;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(zone: &Tz, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(zone.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Tz, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse()
            .map_err(|_| D::Error::custom(format!("there is no time zone `{name}` (write Europe/Vienna)")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Policy, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_policy_is_read_as_it_was_written() {
        let text = "keep_last = 3\nkeep_daily = 7\nkeep_yearly = \"all\"\nkeep_within = \"within 14 days\"\n\
                    keep_tags = [\"release\"]\ntime_zone = \"Europe/Vienna\"\n";
        let policy = read(text).unwrap();
        let rules = policy.rules();
        assert_eq!(rules.keep_yearly, Some(Count::All));
        assert_eq!(rules.keep_minimum.get(), 3);
        assert_eq!(rules.time_zone, Tz::Europe__Vienna);
        let again: Policy = serde_json::from_str(&serde_json::to_string(&policy).unwrap()).unwrap();
        assert_eq!(again, policy);
    }

    #[test]
    fn an_invalid_policy_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "keeps nothing"),
            ("keep_minimum = 5", "keeps nothing"),
            ("only_machines = [\"web\"]", "keeps nothing"),
            ("keep_last = 0", "a number above 0"),
            ("keep_last = -1", "a number above 0"),
            ("keep_last = 5000000000", "a number above 0"),
            ("keep_last = \"unlimited\"", "or `all`"),
            ("keep_last = 1\nkeep_minimum = 0", "nonzero"),
            ("keep_within = \"30\"", "unit is missing"),
            ("keep_dayly = 7", "unknown field `keep_dayly`"),
            ("keep_last = 1\ntime_zone = \"Vienna\"", "no time zone `Vienna`"),
            ("keep_tags = [\"\"]", "keep_tags has an empty name"),
            ("keep_last = 1\nonly_tags = [\" \"]", "only_tags has an empty name"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }
}
