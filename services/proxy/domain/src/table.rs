//! The route table: an immutable value, built whole and swapped whole.
//!
//! A domain has one owner. Who has it keeps it for as long as he claims it; a second claim is reported and waits, and
//! gets the domain in the first table that is built without the first owner's claim. Nothing is taken over in silence.

use std::collections::HashMap;
use std::sync::Arc;

use crate::host::Host;
use crate::route::{Claim, Conflict, Route};

/// Which route answers for which host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteTable {
    /// By domain. Entries are shared so that a request can keep the one that it began with.
    routes: HashMap<Box<str>, Arc<Route>>,
}

impl RouteTable {
    /// Builds the table that follows `previous`. Owners in `previous` keep what they still claim; what is new goes to
    /// the first claim in the given order, so callers give claims by seniority.
    pub fn build(previous: &RouteTable, claims: impl IntoIterator<Item = Claim>) -> (Self, Vec<Conflict>) {
        let claims: Vec<Claim> = claims.into_iter().collect();
        let mut table = Self::default();
        let was_owner =
            |claim: &Claim, host: &str| previous.get(host).is_some_and(|route| route.owner == claim.owner);
        for kept in [true, false] {
            for claim in &claims {
                for host in claim.domains.iter().filter(|host| was_owner(claim, host.as_str()) == kept) {
                    table.routes.entry(host.as_str().into()).or_insert_with(|| {
                        Arc::new(Route {
                            host: host.clone(),
                            owner: claim.owner.clone(),
                            target: claim.target,
                        })
                    });
                }
            }
        }
        let conflicts = table.conflicts(&claims);
        (table, conflicts)
    }

    /// The route of a host, if there is one.
    pub fn find(&self, host: &Host) -> Option<&Arc<Route>> {
        match host {
            Host::Name(name) => self.get(name),
            Host::Address(_) => None,
        }
    }

    /// The route of a domain in canonical form.
    pub fn get(&self, domain: &str) -> Option<&Arc<Route>> {
        self.routes.get(domain)
    }

    /// All routes, in no order.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.values()
    }

    /// How many domains are routed.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether no domain is routed.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    fn conflicts(&self, claims: &[Claim]) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        for claim in claims {
            for host in &claim.domains {
                let route = self.get(host.as_str()).expect("every claimed domain was given to somebody");
                if route.owner != claim.owner {
                    conflicts.push(Conflict {
                        host: host.clone(),
                        kept_by: route.owner.clone(),
                        refused_to: claim.owner.clone(),
                    });
                }
            }
        }
        conflicts
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use contract::{DomainName, VmName};
    use proptest::prelude::*;

    use super::*;
    use crate::route::Target;

    fn vm(name: &str) -> VmName {
        VmName::new(name).expect("valid")
    }

    fn claim(owner: &str, domains: &[&str], port: u16) -> Claim {
        Claim {
            owner: vm(owner),
            domains: domains.iter().map(|domain| DomainName::new(*domain).expect("valid")).collect(),
            target: Target::Up(SocketAddr::from(([127, 0, 0, 1], port))),
        }
    }

    #[test]
    fn the_first_owner_keeps_a_domain_and_the_second_is_reported() {
        let empty = RouteTable::default();
        let (table, conflicts) = RouteTable::build(
            &empty,
            [claim("a", &["x.example", "y.example"], 1), claim("b", &["x.example"], 2)],
        );
        assert_eq!(table.get("x.example").expect("routed").owner, vm("a"));
        assert_eq!(conflicts.len(), 1);
        assert_eq!(conflicts[0].to_string(), "x.example stays with a; b claims it too");
    }

    #[test]
    fn an_owner_is_not_displaced_by_a_claim_that_comes_earlier_in_the_list() {
        let (table, _) = RouteTable::build(&RouteTable::default(), [claim("b", &["x.example"], 2)]);
        let claims = [claim("a", &["x.example"], 1), claim("b", &["x.example"], 2)];
        let (next, conflicts) = RouteTable::build(&table, claims.clone());
        assert_eq!(next.get("x.example").expect("routed").owner, vm("b"));
        assert_eq!(conflicts[0].refused_to, vm("a"));

        let (last, conflicts) = RouteTable::build(&next, claims.into_iter().take(1));
        assert_eq!(last.get("x.example").expect("routed").owner, vm("a"));
        assert!(conflicts.is_empty());
    }

    #[test]
    fn naming_a_domain_twice_is_naming_it_once() {
        let (table, conflicts) =
            RouteTable::build(&RouteTable::default(), [claim("a", &["x.example", "x.example"], 1)]);
        assert_eq!((table.len(), conflicts.len()), (1, 0));
    }

    #[test]
    fn an_address_is_nobodys_domain() {
        let (table, _) = RouteTable::build(&RouteTable::default(), [claim("a", &["x.example"], 1)]);
        assert!(table.find(&Host::parse("[::1]").expect("valid")).is_none());
        assert!(table.find(&Host::parse("X.example.:80").expect("valid")).is_some());
    }

    fn claims() -> impl Strategy<Value = Vec<Claim>> {
        let domain = prop::sample::select(vec!["a.example", "b.example", "c.example", "d.example"]);
        let owner = prop::sample::select(vec!["v1", "v2", "v3"]);
        let one = (owner, prop::collection::vec(domain, 0..4), 1u16..9)
            .prop_map(|(owner, domains, port)| claim(owner, &domains, port));
        prop::collection::vec(one, 0..5)
    }

    proptest! {
        #[test]
        fn every_domain_has_one_owner_who_claims_it_and_whoever_had_it_keeps_it(before in claims(), now in claims()) {
            let (previous, _) = RouteTable::build(&RouteTable::default(), before);
            let (table, conflicts) = RouteTable::build(&previous, now.clone());
            let claims = |owner: &VmName, host: &str| {
                now.iter().any(|claim| &claim.owner == owner && claim.domains.iter().any(|d| d.as_str() == host))
            };
            for claim in &now {
                for host in &claim.domains {
                    let route = table.get(host.as_str()).expect("a claimed domain is routed");
                    prop_assert!(claims(&route.owner, host.as_str()));
                    let reported = conflicts.iter().any(|c| &c.host == host && c.refused_to == claim.owner);
                    prop_assert_eq!(reported, route.owner != claim.owner);
                }
            }
            for route in previous.routes().filter(|route| claims(&route.owner, route.host.as_str())) {
                prop_assert_eq!(&table.get(route.host.as_str()).expect("kept").owner, &route.owner);
            }
            prop_assert!(table.routes().all(|route| claims(&route.owner, route.host.as_str())));
        }
    }
}
