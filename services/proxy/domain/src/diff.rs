//! What changed between two route tables: for the log, and for tunnels whose route was removed.

use std::fmt;
use std::sync::Arc;

use crate::route::Route;
use crate::table::RouteTable;

/// The difference between two tables, each list sorted by domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteTableDiff {
    /// Routes of domains that had no route.
    pub added: Vec<Arc<Route>>,
    /// Routes of domains that have no route any more.
    pub removed: Vec<Arc<Route>>,
    /// Routes that differ: before and after.
    pub changed: Vec<(Arc<Route>, Arc<Route>)>,
}

impl RouteTableDiff {
    /// The changes from `before` to `after`.
    pub fn between(before: &RouteTable, after: &RouteTable) -> Self {
        let mut diff = Self::default();
        for new in after.routes() {
            match before.get(new.domain.as_str()) {
                None => diff.added.push(new.clone()),
                Some(old) if old != new => diff.changed.push((old.clone(), new.clone())),
                Some(_) => {}
            }
        }
        let gone = before.routes().filter(|old| after.get(old.domain.as_str()).is_none());
        diff.removed.extend(gone.cloned());
        diff.added.sort_by(|a, b| a.domain.cmp(&b.domain));
        diff.removed.sort_by(|a, b| a.domain.cmp(&b.domain));
        diff.changed.sort_by(|a, b| a.1.domain.cmp(&b.1.domain));
        diff
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }

    /// Whether some VM lost a domain: it has no route any more, or belongs to another VM.
    pub fn revokes_a_domain(&self) -> bool {
        !self.removed.is_empty() || self.changed.iter().any(|(old, new)| old.vm != new.vm)
    }
}

impl fmt::Display for RouteTableDiff {
    /// One line: `+web.example (web at 10.0.0.2:80), -old.example, ~api.example: stopped -> 10.0.0.3:80`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for route in &self.added {
            write!(f, "{separator}+{} ({} at {})", route.domain, route.vm, route.target)?;
            separator = ", ";
        }
        for route in &self.removed {
            write!(f, "{separator}-{}", route.domain)?;
            separator = ", ";
        }
        for (old, new) in &self.changed {
            write!(f, "{separator}~{}: {} -> {}", new.domain, old.target, new.target)?;
            if old.vm != new.vm {
                write!(f, " (was {}, is {})", old.vm, new.vm)?;
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
    use crate::route::{DomainClaim, UpstreamState, VmDownReason};

    fn table(entries: &[(&str, &str, UpstreamState)]) -> RouteTable {
        let claims = entries.iter().map(|(vm, domain, target)| DomainClaim {
            vm: VmName::new(*vm).expect("valid"),
            domains: vec![DomainName::new(*domain).expect("valid")],
            target: *target,
        });
        RouteTable::build(&RouteTable::default(), claims).0
    }

    fn up(port: u16) -> UpstreamState {
        UpstreamState::Up(SocketAddr::from(([10, 0, 0, 2], port)))
    }

    #[test]
    fn a_diff_names_what_was_added_removed_and_changed() {
        let stopped =
            UpstreamState::Down { reason: VmDownReason::Stopped, retry_after: Duration::from_secs(30) };
        let before = table(&[
            ("a", "same.example", up(1)),
            ("a", "old.example", up(2)),
            ("b", "api.example", stopped),
        ]);
        let after =
            table(&[("a", "same.example", up(1)), ("b", "api.example", up(80)), ("c", "new.example", up(3))]);
        let diff = RouteTableDiff::between(&before, &after);
        assert_eq!(
            diff.to_string(),
            "+new.example (c at 10.0.0.2:3), -old.example, ~api.example: stopped -> 10.0.0.2:80"
        );
        assert!(diff.revokes_a_domain());
    }

    #[test]
    fn a_new_address_revokes_no_domain_but_a_new_vm_does() {
        let before = table(&[("a", "x.example", up(1))]);
        assert!(!RouteTableDiff::between(&before, &table(&[("a", "x.example", up(2))])).revokes_a_domain());
        let moved = RouteTableDiff::between(&before, &table(&[("b", "x.example", up(2))]));
        assert!(moved.revokes_a_domain());
        assert!(moved.to_string().ends_with("(was a, is b)"));
        assert!(RouteTableDiff::between(&before, &before.clone()).is_empty());
    }
}
