//! What changed between two route tables: for the log, and for tunnels whose route is gone.

use std::fmt;
use std::sync::Arc;

use crate::route::Route;
use crate::table::RouteTable;

/// The difference between two tables, each list sorted by domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableDiff {
    /// Routes of domains that had none.
    pub added: Vec<Arc<Route>>,
    /// Routes of domains that have none any more.
    pub removed: Vec<Arc<Route>>,
    /// Routes that differ: as they were, as they are.
    pub changed: Vec<(Arc<Route>, Arc<Route>)>,
}

impl TableDiff {
    /// What must be said to come from `before` to `after`.
    pub fn between(before: &RouteTable, after: &RouteTable) -> Self {
        let mut diff = Self::default();
        for new in after.routes() {
            match before.get(new.host.as_str()) {
                None => diff.added.push(new.clone()),
                Some(old) if old != new => diff.changed.push((old.clone(), new.clone())),
                Some(_) => {}
            }
        }
        let gone = before.routes().filter(|old| after.get(old.host.as_str()).is_none());
        diff.removed.extend(gone.cloned());
        diff.added.sort_by(|a, b| a.host.cmp(&b.host));
        diff.removed.sort_by(|a, b| a.host.cmp(&b.host));
        diff.changed.sort_by(|a, b| a.1.host.cmp(&b.1.host));
        diff
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }

    /// Whether some machine lost a domain: it is routed no more, or to another machine.
    pub fn takes_away(&self) -> bool {
        !self.removed.is_empty() || self.changed.iter().any(|(old, new)| old.owner != new.owner)
    }
}

impl fmt::Display for TableDiff {
    /// One line: `+web.example (web at 10.0.0.2:80), -old.example, ~api.example: stopped -> 10.0.0.3:80`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for route in &self.added {
            write!(f, "{separator}+{} ({} at {})", route.host, route.owner, route.target)?;
            separator = ", ";
        }
        for route in &self.removed {
            write!(f, "{separator}-{}", route.host)?;
            separator = ", ";
        }
        for (old, new) in &self.changed {
            write!(f, "{separator}~{}: {} -> {}", new.host, old.target, new.target)?;
            if old.owner != new.owner {
                write!(f, " (was {}, is {})", old.owner, new.owner)?;
            }
            separator = ", ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use contract::{DomainName, VmName};

    use super::*;
    use crate::route::{Claim, DownReason, Target};

    fn table(entries: &[(&str, &str, Target)]) -> RouteTable {
        let claims = entries.iter().map(|(owner, domain, target)| Claim {
            owner: VmName::new(*owner).expect("valid"),
            domains: vec![DomainName::new(*domain).expect("valid")],
            target: *target,
        });
        RouteTable::build(&RouteTable::default(), claims).0
    }

    fn up(port: u16) -> Target {
        Target::Up(SocketAddr::from(([10, 0, 0, 2], port)))
    }

    #[test]
    fn a_diff_names_what_was_added_removed_and_changed() {
        let stopped = Target::Down { why: DownReason::Stopped, retry_after: Duration::from_secs(30) };
        let before = table(&[
            ("a", "same.example", up(1)),
            ("a", "old.example", up(2)),
            ("b", "api.example", stopped),
        ]);
        let after =
            table(&[("a", "same.example", up(1)), ("b", "api.example", up(80)), ("c", "new.example", up(3))]);
        let diff = TableDiff::between(&before, &after);
        assert_eq!(
            diff.to_string(),
            "+new.example (c at 10.0.0.2:3), -old.example, ~api.example: stopped -> 10.0.0.2:80"
        );
        assert!(diff.takes_away());
    }

    #[test]
    fn a_new_address_takes_nothing_away_but_a_new_owner_does() {
        let before = table(&[("a", "x.example", up(1))]);
        assert!(!TableDiff::between(&before, &table(&[("a", "x.example", up(2))])).takes_away());
        let moved = TableDiff::between(&before, &table(&[("b", "x.example", up(2))]));
        assert!(moved.takes_away());
        assert!(moved.to_string().ends_with("(was a, is b)"));
        assert!(TableDiff::between(&before, &before.clone()).is_empty());
    }
}
