//! The route table: an immutable value, built whole and swapped whole.
//!
//! A domain belongs to one VM, which keeps it for as long as it claims it. A second claim is reported as a conflict, and
//! gets the domain in the first table that is built without the first VM's claim.

use std::collections::HashMap;
use std::sync::Arc;

use crate::host::Host;
use crate::route::{DomainClaim, DomainConflict, Route};

/// The route of each host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteTable {
    /// By domain. Entries are shared so that a request keeps the one that it began with.
    routes: HashMap<Box<str>, Arc<Route>>,
}

impl RouteTable {
    /// Builds the table that follows `previous`. VMs in `previous` keep the domains they still claim; other domains go
    /// to the first claim in the given order, so callers sort claims by age.
    pub fn build(
        previous: &RouteTable,
        claims: impl IntoIterator<Item = DomainClaim>,
    ) -> (Self, Vec<DomainConflict>) {
        let claims: Vec<DomainClaim> = claims.into_iter().collect();
        let mut table = Self::default();
        let had_it = |claim: &DomainClaim, domain: &str| {
            previous.get(domain).is_some_and(|route| route.vm == claim.vm)
        };
        for kept in [true, false] {
            for claim in &claims {
                for domain in claim.domains.iter().filter(|domain| had_it(claim, domain.as_str()) == kept) {
                    table.routes.entry(domain.as_str().into()).or_insert_with(|| {
                        Arc::new(Route { domain: domain.clone(), vm: claim.vm.clone(), target: claim.target })
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

    /// How many domains have a route.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether no domain has a route.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    fn conflicts(&self, claims: &[DomainClaim]) -> Vec<DomainConflict> {
        let mut conflicts = Vec::new();
        for claim in claims {
            for domain in &claim.domains {
                let route = self.get(domain.as_str()).expect("every claimed domain has a route");
                if route.vm != claim.vm {
                    conflicts.push(DomainConflict {
                        domain: domain.clone(),
                        owner_vm: route.vm.clone(),
                        refused_vm: claim.vm.clone(),
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
    use crate::route::UpstreamState;

    fn vm(name: &str) -> VmName {
        VmName::new(name).expect("valid")
    }

    fn claim(name: &str, domains: &[&str], port: u16) -> DomainClaim {
        DomainClaim {
            vm: vm(name),
            domains: domains.iter().map(|domain| DomainName::new(*domain).expect("valid")).collect(),
            target: UpstreamState::Up(SocketAddr::from(([127, 0, 0, 1], port))),
        }
    }

    #[test]
    fn the_first_vm_keeps_a_domain_and_the_second_is_reported() {
        let empty = RouteTable::default();
        let (table, conflicts) = RouteTable::build(
            &empty,
            [claim("a", &["x.example", "y.example"], 1), claim("b", &["x.example"], 2)],
        );
        assert_eq!(table.get("x.example").expect("routed").vm, vm("a"));
        assert_eq!(conflicts.len(), 1);
        assert_eq!(conflicts[0].to_string(), "x.example stays with a; b claims it too");
    }

    #[test]
    fn a_vm_keeps_its_domain_when_another_claim_is_earlier_in_the_list() {
        let (table, _) = RouteTable::build(&RouteTable::default(), [claim("b", &["x.example"], 2)]);
        let claims = [claim("a", &["x.example"], 1), claim("b", &["x.example"], 2)];
        let (next, conflicts) = RouteTable::build(&table, claims.clone());
        assert_eq!(next.get("x.example").expect("routed").vm, vm("b"));
        assert_eq!(conflicts[0].refused_vm, vm("a"));

        let (last, conflicts) = RouteTable::build(&next, claims.into_iter().take(1));
        assert_eq!(last.get("x.example").expect("routed").vm, vm("a"));
        assert!(conflicts.is_empty());
    }

    #[test]
    fn claiming_a_domain_twice_is_claiming_it_once() {
        let (table, conflicts) =
            RouteTable::build(&RouteTable::default(), [claim("a", &["x.example", "x.example"], 1)]);
        assert_eq!((table.len(), conflicts.len()), (1, 0));
    }

    #[test]
    fn an_ip_address_has_no_route() {
        let (table, _) = RouteTable::build(&RouteTable::default(), [claim("a", &["x.example"], 1)]);
        assert!(table.find(&Host::parse("[::1]").expect("valid")).is_none());
        assert!(table.find(&Host::parse("X.example.:80").expect("valid")).is_some());
    }

    fn claims() -> impl Strategy<Value = Vec<DomainClaim>> {
        let domain = prop::sample::select(vec!["a.example", "b.example", "c.example", "d.example"]);
        let owner = prop::sample::select(vec!["v1", "v2", "v3"]);
        let one = (owner, prop::collection::vec(domain, 0..4), 1u16..9)
            .prop_map(|(owner, domains, port)| claim(owner, &domains, port));
        prop::collection::vec(one, 0..5)
    }

    proptest! {
        #[test]
        fn every_domain_belongs_to_one_vm_that_claims_it_and_stays_while_claimed(before in claims(), now in claims()) {
            let (previous, _) = RouteTable::build(&RouteTable::default(), before);
            let (table, conflicts) = RouteTable::build(&previous, now.clone());
            let claims = |vm: &VmName, domain: &str| {
                now.iter().any(|claim| &claim.vm == vm && claim.domains.iter().any(|d| d.as_str() == domain))
            };
            for claim in &now {
                for domain in &claim.domains {
                    let route = table.get(domain.as_str()).expect("a claimed domain is routed");
                    prop_assert!(claims(&route.vm, domain.as_str()));
                    let reported = conflicts.iter().any(|c| &c.domain == domain && c.refused_vm == claim.vm);
                    prop_assert_eq!(reported, route.vm != claim.vm);
                }
            }
            for route in previous.routes().filter(|route| claims(&route.vm, route.domain.as_str())) {
                prop_assert_eq!(&table.get(route.domain.as_str()).expect("kept").vm, &route.vm);
            }
            prop_assert!(table.routes().all(|route| claims(&route.vm, route.domain.as_str())));
        }
    }
}
