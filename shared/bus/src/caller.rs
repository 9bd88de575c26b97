//! Who asks. The server writes account and user into each request that comes from another account, where no client can;
//! inside an account it writes nothing.
//!
//! ```text
//!   stamped                    unstamped
//!     kind other than Client     on an internal subject: ourselves
//!       refused (see below)      on any other subject:   refused
//!     account of a service       on a bus without accounts (tests): anonymous
//!     account PEOPLE or JOINING
//! ```
//!
//! A request that one instance of a service received and another has to answer is passed on on an internal subject, with
//! its callers in a header: instances of one service trust each other.
//!
//! An account may have the server send a row of a table of its own to any subject that it may use, by naming that subject
//! as the reply of a read. Such a request is stamped with that account, but as sent by JetStream: it is refused.

use std::collections::HashMap;

use contract::catalog::may_send;
use contract::message::{Caller, Failure, FailureKind, Sender};
use contract::permissions::Account;
use contract::{Request, Service};
use serde::{Deserialize, Serialize};

use crate::people::People;

/// Written by the NATS server when a request comes from another account; no client can write it there.
pub(crate) const REQUEST_INFO_HEADER: &str = "Nats-Request-Info";
/// Written by the scheduler: the public key of the person who saved the schedule. Believed from its account only.
const ON_BEHALF_OF_HEADER: &str = "Loam-On-Behalf-Of";
/// Written by the instance that passes a request on to another host: who sent it, and for whom. Believed on internal
/// subjects only.
pub(crate) const FORWARDED_FOR_HEADER: &str = "Loam-Forwarded-For";
/// The kind of a request that a client sent.
const KIND_CLIENT: &str = "Client";

/// What the server writes, as far as we read it.
#[derive(Serialize, Deserialize)]
pub(crate) struct RequestInfo {
    pub(crate) acc: String,
    #[serde(default)]
    pub(crate) user: String,
    #[serde(default)]
    pub(crate) kind: String,
}

/// Who asks, and for whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Callers {
    pub(crate) caller: Caller,
    #[serde(default)]
    pub(crate) on_behalf_of: Option<Caller>,
}

/// Where a request arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival<'a> {
    /// The service that answers.
    pub(crate) service: Service,
    /// Whether the bus has accounts.
    pub(crate) has_accounts: bool,
    /// Whether the subject is one that no other account can send to.
    pub(crate) is_internal: bool,
    /// The names of people.
    pub(crate) people: &'a People,
}

/// The header of a request that is sent for a person; none for anybody else.
pub(crate) fn on_behalf_of(caller: &Caller) -> Option<(String, String)> {
    match caller {
        Caller::Person { user, .. } => Some((ON_BEHALF_OF_HEADER.into(), user.clone())),
        Caller::Service(_) | Caller::JoiningHost { .. } | Caller::Anonymous | Caller::Unknown => None,
    }
}

/// The header of a request that is passed on to another instance.
pub(crate) fn forwarded_for(callers: &Callers) -> (String, String) {
    (FORWARDED_FOR_HEADER.into(), serde_json::to_string(callers).expect("plain text"))
}

/// Finds out who asks, and refuses whoever may not send this request.
pub(crate) fn check<R: Request>(
    headers: &HashMap<String, String>,
    arrival: Arrival<'_>,
) -> Result<Callers, Failure> {
    let caller = caller_of(headers, arrival).map_err(|reason| not_allowed(R::NAME, reason))?;
    if let Some(text) = headers.get(FORWARDED_FOR_HEADER) {
        return forwarded::<R>(text, arrival);
    }
    let on_behalf_of = headers.get(ON_BEHALF_OF_HEADER).map(|user| arrival.people.person(user));
    if on_behalf_of.is_some() && !matches!(caller, Caller::Service(Service::Scheduler) | Caller::Anonymous) {
        return Err(not_allowed(R::NAME, format!("{caller} cannot send requests for others")));
    }
    permitted::<R>(Callers { caller, on_behalf_of }, arrival)
}

/// The callers of a request that another instance of the service received.
fn forwarded<R: Request>(text: &str, arrival: Arrival<'_>) -> Result<Callers, Failure> {
    if !arrival.is_internal {
        let reason = format!("only an instance of {} passes requests on", arrival.service);
        return Err(not_allowed(R::NAME, reason));
    }
    let callers = serde_json::from_str(text)
        .map_err(|error| not_allowed(R::NAME, format!("its callers cannot be read: {error}")))?;
    permitted::<R>(callers, arrival)
}

fn permitted<R: Request>(callers: Callers, arrival: Arrival<'_>) -> Result<Callers, Failure> {
    for asking in [Some(&callers.caller), callers.on_behalf_of.as_ref()].into_iter().flatten() {
        if !is_permitted::<R>(asking, arrival.service) {
            return Err(not_allowed(R::NAME, format!("{asking} may not send it to {}", arrival.service)));
        }
    }
    Ok(callers)
}

fn not_allowed(request: &str, reason: String) -> Failure {
    Failure { kind: FailureKind::NotAllowed, message: format!("{request}: {reason}") }
}

fn is_permitted<R: Request>(caller: &Caller, owner: Service) -> bool {
    match caller {
        Caller::Person { .. } => R::SENDERS.contains(&Sender::People),
        Caller::Service(service) => may_send(R::SENDERS, R::SCHEDULABLE, *service, owner),
        Caller::JoiningHost { .. } => R::SENDERS.contains(&Sender::JoiningHost),
        Caller::Anonymous => true,
        Caller::Unknown => false,
    }
}

fn caller_of(headers: &HashMap<String, String>, arrival: Arrival<'_>) -> Result<Caller, String> {
    let Some(text) = headers.get(REQUEST_INFO_HEADER) else {
        return match (arrival.has_accounts, arrival.is_internal) {
            (false, _) => Ok(Caller::Anonymous),
            (true, true) => Ok(Caller::Service(arrival.service)),
            (true, false) => Err("the bus server did not say who sent it".into()),
        };
    };
    let info: RequestInfo = serde_json::from_str(text)
        .map_err(|error| format!("what the bus server says of its sender cannot be read: {error}"))?;
    if info.kind != KIND_CLIENT {
        return Err(format!("account {} did not send it itself; it is an answer that was sent on", info.acc));
    }
    match Account::named(&info.acc) {
        Some(Account::Service(service)) => Ok(Caller::Service(service)),
        Some(Account::People) => Ok(arrival.people.person(&info.user)),
        Some(Account::Joining) => Ok(Caller::JoiningHost { token: info.user }),
        None => Err(format!("account {} is none of this installation", info.acc)),
    }
}

#[cfg(test)]
mod tests {
    use contract::backup::StartBackup;
    use contract::provisioner::{ListVms, OpenDisks};

    use super::*;

    fn stamp(account: &str, user: &str, kind: &str) -> (String, String) {
        let info = RequestInfo { acc: account.into(), user: user.into(), kind: kind.into() };
        (REQUEST_INFO_HEADER.into(), serde_json::to_string(&info).expect("plain text"))
    }

    fn check_at<R: Request>(
        service: Service,
        is_internal: bool,
        headers: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Callers, String> {
        let people = People::default();
        let arrival = Arrival { service, has_accounts: true, is_internal, people: &people };
        check::<R>(&headers.into_iter().collect(), arrival).map_err(|failure| {
            assert_eq!(failure.kind, FailureKind::NotAllowed);
            failure.message
        })
    }

    fn alice() -> Caller {
        Caller::Person { user: "UALICE".into(), name: None }
    }

    #[test]
    fn the_caller_is_the_account_that_the_server_stamped() {
        let list = |headers| check_at::<ListVms>(Service::Provisioner, false, headers);
        let only = |caller| Ok(Callers { caller, on_behalf_of: None });
        assert_eq!(list(vec![stamp("PROXY", "UP", "Client")]), only(Caller::Service(Service::Proxy)));
        assert_eq!(list(vec![stamp("PEOPLE", "UALICE", "Client")]), only(alice()));
    }

    #[test]
    fn without_a_clients_stamp_a_request_is_refused_except_from_ourselves_on_an_internal_subject() {
        for headers in [
            vec![],
            vec![stamp("PROXY", "UP", "JetStream")],
            vec![stamp("PROXY", "UP", "")],
            vec![stamp("ELSEWHERE", "UX", "Client")],
            vec![(REQUEST_INFO_HEADER.to_string(), "not JSON".to_string())],
        ] {
            check_at::<ListVms>(Service::Provisioner, false, headers).expect_err("refused");
        }
        let ours = check_at::<contract::health::CheckHealth>(Service::Upgrade, true, []).expect("ours");
        assert_eq!(ours.caller, Caller::Service(Service::Upgrade));
    }

    #[test]
    fn a_caller_sends_only_what_the_contract_lets_it_send() {
        let open =
            |account| check_at::<OpenDisks>(Service::Provisioner, false, [stamp(account, "U", "Client")]);
        open("BACKUP").expect("permitted");
        for account in ["PROXY", "SCHEDULER", "UPGRADE", "PEOPLE"] {
            let reason = open(account).expect_err("not permitted");
            assert!(reason.starts_with("open_disks: "), "{reason}");
        }
    }

    #[test]
    fn only_the_scheduler_sends_for_a_person_and_only_what_that_person_may_send() {
        let behalf = on_behalf_of(&alice()).expect("a person");
        let from = |account| [stamp(account, "U", "Client"), behalf.clone()];
        let start = check_at::<StartBackup>(Service::Backup, false, from("SCHEDULER")).expect("permitted");
        assert_eq!(start.caller, Caller::Service(Service::Scheduler));
        assert_eq!(start.on_behalf_of, Some(alice()));
        check_at::<StartBackup>(Service::Backup, false, from("PEOPLE")).expect_err("a person for another");
        check_at::<ListVms>(Service::Provisioner, false, from("PROXY")).expect_err("another service");
        assert_eq!(on_behalf_of(&Caller::Service(Service::Backup)), None);
    }

    #[test]
    fn a_request_that_was_passed_on_keeps_its_callers_and_comes_on_an_internal_subject_only() {
        let asked = Callers { caller: alice(), on_behalf_of: None };
        let header = forwarded_for(&asked);
        let list =
            |is_internal, headers: Vec<_>| check_at::<ListVms>(Service::Provisioner, is_internal, headers);
        assert_eq!(list(true, vec![header.clone()]), Ok(asked));
        // From another account it cannot come: only ours reaches an internal subject.
        list(false, vec![header.clone(), stamp("PEOPLE", "UMALLORY", "Client")]).expect_err("not ours");
        list(false, vec![header.clone()]).expect_err("not on an internal subject");
        check_at::<OpenDisks>(Service::Provisioner, true, [header]).expect_err("a person may not send that");
    }
}
