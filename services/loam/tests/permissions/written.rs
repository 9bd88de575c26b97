//! The files under `deploy/nats` say what the server is configured with. After a change of the contract's permissions:
//! run with `LOAM_WRITE_SAMPLES=1` and read the difference.

use std::path::Path;

use contract::Realm;
use contract::permissions::User;
use loam::nats::render::{ServerPaths, render};
use loam::nats::table;
use loam::state::keys::{NatsPublicKeys, first_users};

fn compare(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/nats").join(file);
    if std::env::var_os("LOAM_WRITE_SAMPLES").is_some() {
        std::fs::write(&path, text).expect("written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == text, "{file} is not what the contract says; run with LOAM_WRITE_SAMPLES=1");
}

#[test]
fn the_page_of_permissions_is_up_to_date() {
    compare("permissions.md", &table::page());
}

#[test]
fn the_sample_of_the_server_settings_is_up_to_date() {
    let key = |user: &User| format!("PUBLIC_NKEY_OF_{}", user.to_string().to_uppercase().replace(' ', "_"));
    let users = first_users().into_iter().map(|user| (user.clone(), key(&user))).collect();
    let paths = ServerPaths {
        listen: "127.0.0.1:4222",
        store: Path::new("/var/lib/loam/nats/data"),
        cluster: None,
        tls: None,
    };
    compare("nats.sample.conf", &render(&Realm::default(), &NatsPublicKeys { users }, paths));
}
