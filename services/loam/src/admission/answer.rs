//! How the supervisor answers a host that joins. Who it is, the server has checked: the caller holds the token's key.

use std::collections::BTreeMap;
use std::time::Duration;

use bus::{Caller, ErrorReply, IncomingRequest};
use contract::message::{Failure, FailureKind, with_causes};
use contract::supervisor::{JoinHost, JoinHostRefused, JoinedHost, OfferedKey};
use contract::{HostName, Service, Timestamp};
use nkeys::KeyPair;

use super::hosts::{AdmittedHost, Hosts};
use super::{Admission, AdmissionError};
use crate::state::{State, keys};

/// How often tokens are looked through for those that are not valid any more.
const EXPIRY_EVERY: Duration = Duration::from_secs(10);

/// Answers a request to join.
pub async fn join(
    state: &State,
    incoming: IncomingRequest<JoinHost>,
) -> Result<JoinedHost, ErrorReply<JoinHostRefused>> {
    let Caller::JoiningHost { token } = &incoming.caller else {
        let message = "only a host with a join token may send it".to_string();
        return Err(Failure { kind: FailureKind::NotAllowed, message }.into());
    };
    let mut admission = Admission::open(state).await.map_err(failed)?;
    let now = chrono::Utc::now();
    let decision = decide(&admission.hosts, token, &incoming.request, now).map_err(ErrorReply::Refused)?;
    let host = &incoming.request.host;
    if let Some(admitted) = decision {
        tracing::info!(%host, "a host joins");
        admission.hosts.hosts.insert(host.clone(), admitted);
    }
    // Again where it had been admitted: a crash may have kept the servers from reading it.
    let effect = admission.apply().await.map_err(failed)?;
    let read = |path| std::fs::read_to_string(path).ok();
    let people = keys::read_people(state).map_err(|error| failed(error.into()))?;
    Ok(JoinedHost {
        url: admission.servers.url.clone(),
        ca: admission.servers.ca_file(state).and_then(read),
        people,
        in_effect: effect.is_in_effect(),
    })
}

/// Decides: admit this, or nothing where the same keys were admitted by this token before.
fn decide(
    known: &Hosts,
    token: &str,
    request: &JoinHost,
    now: Timestamp,
) -> Result<Option<AdmittedHost>, JoinHostRefused> {
    let host = &request.host;
    let found = known.tokens.iter().find(|(_, known)| known.public_key == token);
    let (of_token, valid) = found.ok_or_else(|| JoinHostRefused::TokenNotValid(host.clone()))?;
    if valid.expires <= now {
        return Err(JoinHostRefused::TokenExpired(of_token.clone()));
    }
    if of_token != host {
        return Err(JoinHostRefused::OtherHost(of_token.clone()));
    }
    let keys = checked_keys(token, host, &request.keys)?;
    match known.hosts.get(host) {
        Some(admitted) if admitted.token == token && admitted.keys == keys => Ok(None),
        Some(admitted) if admitted.token == token => Err(JoinHostRefused::TokenUsed(host.clone())),
        _ => Ok(Some(AdmittedHost { token: token.into(), joined: now, keys })),
    }
}

/// The public keys, a different one for each service, each with a proof that the host holds the private half.
fn checked_keys(
    token: &str,
    host: &HostName,
    offered: &[OfferedKey],
) -> Result<BTreeMap<Service, String>, JoinHostRefused> {
    let mut keys: BTreeMap<Service, String> = BTreeMap::new();
    for service in Service::ALL {
        let not_usable = |reason: &str| JoinHostRefused::KeyNotUsable { service, reason: reason.into() };
        let offered = offered.iter().find(|key| key.service == service);
        let OfferedKey { public_key, signature, .. } = offered.ok_or_else(|| not_usable("it is missing"))?;
        let pair = KeyPair::from_public_key(public_key).ok().filter(|_| public_key.starts_with('U'));
        let pair = pair.ok_or_else(|| not_usable("it is no public nkey of a user"))?;
        let signature = hex::decode(signature).map_err(|_| not_usable("its signature cannot be read"))?;
        let text = JoinHost::signed_text(token, host, service);
        pair.verify(text.as_bytes(), &signature).map_err(|_| not_usable("its signature is wrong"))?;
        if keys.values().any(|other| other == public_key) {
            return Err(not_usable("another service has the same"));
        }
        keys.insert(service, public_key.clone());
    }
    Ok(keys)
}

/// Has the servers forget tokens that are not valid any more, for ever.
pub async fn expire_tokens(state: State) {
    loop {
        tokio::time::sleep(EXPIRY_EVERY).await;
        let expired = Hosts::read(&state).is_ok_and(|mut hosts| hosts.drop_expired(chrono::Utc::now()));
        if !expired {
            continue;
        }
        let applied = async { Admission::open(&state).await?.apply().await }.await;
        if let Err(error) = applied {
            tracing::error!(error = with_causes(&error), "join tokens that are not valid any more stay");
        }
    }
}

fn failed(error: AdmissionError) -> ErrorReply<JoinHostRefused> {
    Failure { kind: FailureKind::Internal, message: with_causes(&error) }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::hosts::JoinToken;

    const TOKEN: &str = "UTOKEN";

    fn host(name: &str) -> HostName {
        HostName::new(name).expect("fits")
    }

    fn request(pairs: &BTreeMap<Service, KeyPair>, name: &str, token: &str) -> JoinHost {
        let offered = |(service, pair): (&Service, &KeyPair)| {
            let text = JoinHost::signed_text(token, &host(name), *service);
            let signature = hex::encode(pair.sign(text.as_bytes()).expect("signed"));
            OfferedKey { service: *service, public_key: pair.public_key(), signature }
        };
        JoinHost { host: host(name), keys: pairs.iter().map(offered).collect() }
    }

    fn pairs() -> BTreeMap<Service, KeyPair> {
        Service::ALL.into_iter().map(|service| (service, KeyPair::new_user())).collect()
    }

    fn with_token() -> Hosts {
        let token =
            JoinToken { public_key: TOKEN.into(), expires: chrono::Utc::now() + chrono::TimeDelta::hours(1) };
        Hosts { tokens: [(host("h2"), token)].into(), ..Hosts::default() }
    }

    #[test]
    fn a_token_admits_the_keys_of_one_host_once_and_the_same_keys_again() {
        let (mut hosts, pairs_of_h2, now) = (with_token(), pairs(), chrono::Utc::now());
        let ask = request(&pairs_of_h2, "h2", TOKEN);
        let admitted = decide(&hosts, TOKEN, &ask, now).expect("admitted").expect("new");
        hosts.hosts.insert(host("h2"), admitted);
        assert_eq!(decide(&hosts, TOKEN, &ask, now), Ok(None), "again");
        let others = request(&pairs(), "h2", TOKEN);
        assert_eq!(decide(&hosts, TOKEN, &others, now), Err(JoinHostRefused::TokenUsed(host("h2"))));
        // A later token replaces the keys.
        let next = hosts.tokens.get_mut(&host("h2")).expect("there");
        next.public_key = "UNEXT".into();
        let replaced = decide(&hosts, "UNEXT", &request(&pairs(), "h2", "UNEXT"), now).expect("admitted");
        assert_ne!(replaced.expect("new").keys, hosts.hosts[&host("h2")].keys);
    }

    #[test]
    fn a_late_token_one_for_another_host_and_unknown_ones_are_refused() {
        let (hosts, pairs, now) = (with_token(), pairs(), chrono::Utc::now());
        let late = now + chrono::TimeDelta::hours(2);
        let ask = request(&pairs, "h2", TOKEN);
        assert_eq!(decide(&hosts, TOKEN, &ask, late), Err(JoinHostRefused::TokenExpired(host("h2"))));
        assert_eq!(decide(&hosts, "UX", &ask, now), Err(JoinHostRefused::TokenNotValid(host("h2"))));
        let other = request(&pairs, "h3", TOKEN);
        assert_eq!(decide(&hosts, TOKEN, &other, now), Err(JoinHostRefused::OtherHost(host("h2"))));
    }

    #[test]
    fn every_service_has_a_key_of_its_own_whose_private_half_the_host_holds() {
        let (hosts, pairs, now) = (with_token(), pairs(), chrono::Utc::now());
        let good = request(&pairs, "h2", TOKEN);
        let change = |change: fn(&mut OfferedKey)| {
            let mut ask = good.clone();
            ask.keys.iter_mut().filter(|key| key.service == Service::Proxy).for_each(change);
            match decide(&hosts, TOKEN, &ask, now) {
                Err(JoinHostRefused::KeyNotUsable { service, reason }) => format!("{service}: {reason}"),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(change(|key| key.service = Service::Unknown), "proxy: it is missing");
        let stolen = change(|key| key.public_key = KeyPair::new_user().public_key());
        assert_eq!(stolen, "proxy: its signature is wrong");
        let account = change(|key| key.public_key = KeyPair::new_account().public_key());
        assert_eq!(account, "proxy: it is no public nkey of a user");
        let mut swapped = good.clone();
        let (of_backup, of_proxy) = (swapped.keys[1].clone(), &mut swapped.keys[2]);
        *of_proxy = OfferedKey { service: of_proxy.service, ..of_backup };
        let refused = decide(&hosts, TOKEN, &swapped, now).expect_err("a signature is for one service");
        assert!(refused.to_string().ends_with("its signature is wrong"), "{refused}");
        // One key for two services, with good signatures.
        let mut twice = pairs;
        let seed = twice[&Service::Backup].seed().expect("a seed");
        twice.insert(Service::Proxy, KeyPair::from_seed(&seed).expect("a seed"));
        let refused = decide(&hosts, TOKEN, &request(&twice, "h2", TOKEN), now).expect_err("refused");
        assert!(refused.to_string().contains("another service has the same"), "{refused}");
    }
}
