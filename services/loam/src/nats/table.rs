//! Who may publish and subscribe to what, as a page for people.

use std::fmt::Write;

use contract::rights::{self, Rights};
use contract::{Realm, Service};

use crate::state::keys::OPERATOR;

const OPENING: &str = "# Permissions on the bus

Generated from `contract::rights` by a test; do not edit. What is not listed is denied. A service may also reply to each
request once, within 130 seconds. Nobody but `bootstrap` may create a stream, a consumer or a bucket, and `bootstrap` is
used for a moment at each start. Requests of people reach the services with the header `Nats-Request-Info`, in which the
server writes the account and the key of the caller.

";

/// The page, for the default realm.
pub fn page() -> String {
    let realm = Realm::default();
    let mut text = OPENING.to_string();
    for service in Service::ALL {
        chapter(&mut text, &format!("{service} (account LOAM)"), &rights::of_service(&realm, service));
    }
    chapter(&mut text, "bootstrap (account LOAM)", &rights::of_bootstrap());
    chapter(
        &mut text,
        &format!("{OPERATOR}, a person (account PEOPLE)"),
        &rights::of_person(&realm, OPERATOR),
    );
    text
}

fn chapter(text: &mut String, title: &str, rights: &Rights) {
    let mut line = |line: String| writeln!(text, "{line}").expect("writing to a string cannot fail");
    line(format!("## {title}\n"));
    line("| may publish | may subscribe |\n| --- | --- |".into());
    for row in 0..rights.publish.len().max(rights.subscribe.len()) {
        let cell = |list: &[String]| list.get(row).map_or(String::new(), |subject| format!("`{subject}`"));
        line(format!("| {} | {} |", cell(&rights.publish), cell(&rights.subscribe)));
    }
    line(String::new());
}
