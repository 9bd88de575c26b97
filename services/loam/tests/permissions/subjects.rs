//! Every subject on the bus that means something: what is said between Loam's parts, and what a server does for whoever
//! may ask it.

use contract::message::MessageOwner;
use contract::permissions::User;
use contract::{Realm, Service, bucket, catalog};

use crate::test_bus::all_users;

/// Calls of JetStream's API that create, change, read or remove.
const STREAM_CALLS: [&str; 11] = [
    "STREAM.CREATE",
    "STREAM.UPDATE",
    "STREAM.DELETE",
    "STREAM.PURGE",
    "STREAM.INFO",
    "STREAM.MSG.GET",
    "STREAM.MSG.DELETE",
    "STREAM.RESTORE",
    "STREAM.SNAPSHOT",
    "CONSUMER.NAMES",
    "DIRECT.GET",
];
const CONSUMER_CALLS: [&str; 5] =
    ["CONSUMER.CREATE", "CONSUMER.DURABLE.CREATE", "CONSUMER.DELETE", "CONSUMER.INFO", "CONSUMER.MSG.NEXT"];

/// Literal subjects.
pub(crate) fn literal() -> Vec<String> {
    let realm = Realm::default();
    let mut all = Vec::new();
    for entry in catalog::requests() {
        for owner in entry.owners() {
            all.push(format!("{realm}.v1.{owner}.internal.{}", entry.name));
            all.push(format!("{realm}.v1.{owner}.{}", entry.name));
            all.push(format!("{realm}.v1.{owner}.{}.h1", entry.name));
        }
    }
    for entry in catalog::events() {
        match entry.owner {
            MessageOwner::One(owner) => all.push(format!("{realm}.v1.event.{owner}.{}.web", entry.name)),
            MessageOwner::Each | MessageOwner::EachWithOperations => {
                all.extend(
                    Service::ALL.map(|owner| format!("{realm}.v1.event.{}.{owner}.h1.web", entry.name)),
                );
            }
        }
    }
    for table in table_names().into_iter().chain(["evil"]) {
        all.push(format!("$KV.{table}.web"));
        all.extend(Service::ALL.map(|service| format!("$KV.{table}.{service}.web")));
        all.extend(STREAM_CALLS.map(|word| format!("$JS.API.{word}.KV_{table}")));
        all.extend(CONSUMER_CALLS.map(|word| format!("$JS.API.{word}.KV_{table}.evil")));
        all.push(format!("$JS.API.CONSUMER.CREATE.KV_{table}.evil.$KV.{table}.web"));
        all.push(format!("$JS.API.DIRECT.GET.KV_{table}.$KV.{table}.web"));
        all.extend(Service::ALL.map(|s| format!("$JS.API.DIRECT.GET.KV_{table}.$KV.{table}.{s}.web")));
        all.push(format!("$JS.ACK.KV_{table}.evil.1.1.1.1.1"));
        all.push(format!("$JS.FC.KV_{table}.evil.x"));
    }
    for word in ["INFO", "STREAM.NAMES", "STREAM.LIST", "STREAM.CREATE.evil", "ACCOUNT.PURGE.LOAM"] {
        all.push(format!("$JS.API.{word}"));
    }
    for verb in ["PING", "INFO", "STATS"] {
        all.push(format!("$SRV.{verb}"));
        all.extend(Service::ALL.map(|service| format!("$SRV.{verb}.{service}")));
        all.extend(Service::ALL.map(|service| format!("$SRV.{verb}.{service}.instance")));
    }
    all.extend(all_users().iter().map(|user| format!("{}.x", user.inbox_prefix())));
    let elsewhere = ["_INBOX.x", "_R_.x", "$SYS.REQ.SERVER.PING", "elsewhere"];
    all.extend(elsewhere.map(String::from));
    all.sort();
    all.dedup();
    all
}

/// Patterns that somebody curious might subscribe to.
pub(crate) fn patterns() -> Vec<String> {
    let mut all: Vec<String> = [
        ">",
        "*",
        "*.>",
        "loam.>",
        "loam.v1.>",
        "loam.v1.*.>",
        "loam.v1.event.>",
        "loam.v1.event.operation.*.*.*",
        "loam.v1.event.provisioner.vm_changed.*",
        "$KV.>",
        "$JS.>",
        "$JS.API.>",
        "$SRV.>",
        "$SRV.PING",
        "_INBOX.>",
        "_R_.>",
        "$SYS.>",
        "$JS.EVENT.>",
    ]
    .map(String::from)
    .into();
    for service in Service::ALL {
        all.push(format!("loam.v1.{service}.>"));
        all.push(format!("{}.>", User::Service(service).inbox_prefix()));
    }
    all
}

/// The names of all tables, each once.
pub(crate) fn table_names() -> Vec<&'static str> {
    let of = |service: Service| bucket::of_service(service).iter().map(|bucket| bucket.name);
    let mut names: Vec<&str> = Service::ALL.into_iter().flat_map(of).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Whether a permission covers a subject or a pattern.
pub(crate) fn covers(right: &str, asked: &str) -> bool {
    let (mut rights, mut words) = (right.split('.'), asked.split('.'));
    loop {
        match (rights.next(), words.next()) {
            (Some(">"), Some(_)) => return true,
            (Some("*"), Some(word)) if word != ">" => {}
            (Some(right), Some(word)) if right == word => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}
