//! Who may publish and subscribe to what, as a page for people.

use std::fmt::Write;

use contract::permissions::{Permissions, User};
use contract::{HostName, Realm};

use crate::state::keys;

const OPENING: &str = "# Permissions on the bus

Generated from `contract::permissions` by a test; do not edit. Each service has an account of its own; people and other
systems share the account PEOPLE. What is not listed is denied, and only what an account imports reaches it from another
one. On `_R_.>` a service replies to each request of another account, once, within 130 seconds. Only a `bootstrap` user may create tables, those of
its account, and `loam bus tables` uses it for a moment. A host with a join token may ask to join, for an hour. Requests that come from another account carry the header
`Nats-Request-Info`, in which the server writes the account and the key of the caller.

";

/// The page, for the default realm.
pub fn page() -> String {
    let realm = Realm::default();
    let mut text = OPENING.to_string();
    let joining = User::JoiningHost(HostName::new("h2").expect("a fixed name that fits"));
    for user in keys::first_users().into_iter().chain([joining]) {
        chapter(&mut text, &format!("{user} (account {})", user.account()), &user.permissions(&realm));
    }
    text
}

fn chapter(text: &mut String, title: &str, rights: &Permissions) {
    let mut line = |line: String| writeln!(text, "{line}").expect("writing to a string cannot fail");
    line(format!("## {title}\n"));
    line("| may publish | may subscribe |\n| --- | --- |".into());
    for row in 0..rights.publish.len().max(rights.subscribe.len()) {
        let cell = |list: &[String]| list.get(row).map_or(String::new(), |subject| format!("`{subject}`"));
        line(format!("| {} | {} |", cell(&rights.publish), cell(&rights.subscribe)));
    }
    line(String::new());
}
