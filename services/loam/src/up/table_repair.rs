//! What `loam up` does about tables that services report: missing ones are created again, and a NATS server of our own that
//! cannot write is restarted once its disk has room, because it does not begin to write again by itself.

use std::time::Duration;

use contract::health::{MISSING_TABLES, TABLE_WRITES};
use tokio::time::Instant;

use super::status_view::HealthTable;

/// Creating tables and restarting the server are not repeated sooner: a cause that stays must not become a storm.
const REPEAT_AFTER: Duration = Duration::from_secs(60);
/// How long tables must have been unwritable: a cluster that elects a leader recovers by itself.
const UNWRITABLE_FOR: Duration = Duration::from_secs(20);

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repair {
    /// Run `loam bus tables`.
    CreateTables,
    /// Restart the NATS server.
    RestartServer,
}

/// When what was done.
#[derive(Debug, Default)]
pub(super) struct TableRepair {
    unwritable_since: Option<Instant>,
    created: Option<Instant>,
    restarted: Option<Instant>,
}

impl TableRepair {
    /// Decides by the health of the services; `has_room` is asked only where it matters.
    pub(super) fn decide(
        &mut self,
        health: &HealthTable,
        now: Instant,
        has_room: impl FnOnce() -> bool,
    ) -> Option<Repair> {
        let has_problem = |name: &str| {
            health
                .values()
                .any(|health| health.parts.iter().any(|it| it.part == name && it.problem.is_some()))
        };
        let is_due = |last: Option<Instant>| last.is_none_or(|last| now - last >= REPEAT_AFTER);
        if has_problem(MISSING_TABLES) && is_due(self.created) {
            self.created = Some(now);
            return Some(Repair::CreateTables);
        }
        if !has_problem(TABLE_WRITES) {
            self.unwritable_since = None;
            return None;
        }
        let since = *self.unwritable_since.get_or_insert(now);
        if now - since >= UNWRITABLE_FOR && is_due(self.restarted) && has_room() {
            self.restarted = Some(now);
            return Some(Repair::RestartServer);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use contract::Service;
    use contract::health::{Health, PartHealth};

    use super::*;

    fn health(part: &str) -> HealthTable {
        let health = Health {
            service: Service::Backup,
            version: "0.1.0".into(),
            build: "0".into(),
            instance: "1".into(),
            since: chrono::Utc::now(),
            parts: vec![PartHealth { part: part.into(), problem: Some("operations".into()) }],
            notices: Vec::new(),
        };
        HealthTable::from([(Service::Backup, health)])
    }

    #[test]
    fn missing_tables_are_created_and_not_again_at_once() {
        let (mut repair, start) = (TableRepair::default(), Instant::now());
        let mut decide = |after: u64, health: &HealthTable| {
            repair.decide(health, start + Duration::from_secs(after), || true)
        };
        assert_eq!(decide(0, &HealthTable::new()), None);
        assert_eq!(decide(1, &health(MISSING_TABLES)), Some(Repair::CreateTables));
        assert_eq!(decide(2, &health(MISSING_TABLES)), None);
        assert_eq!(decide(61, &health(MISSING_TABLES)), Some(Repair::CreateTables));
    }

    #[test]
    fn a_server_that_cannot_write_for_a_while_is_restarted_when_there_is_room() {
        let (mut repair, start) = (TableRepair::default(), Instant::now());
        let mut decide = |after: u64, part: &str, room: bool| {
            repair.decide(&health(part), start + Duration::from_secs(after), || room)
        };
        assert_eq!(decide(0, TABLE_WRITES, true), None);
        assert_eq!(decide(25, TABLE_WRITES, false), None, "no room yet");
        assert_eq!(decide(26, TABLE_WRITES, true), Some(Repair::RestartServer));
        assert_eq!(decide(30, TABLE_WRITES, true), None);
        assert_eq!(decide(31, "store", true), None, "it writes again");
        assert_eq!(decide(100, TABLE_WRITES, true), None, "for a moment");
    }
}
