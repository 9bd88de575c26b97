//! A real server with the settings that `loam up` writes, and the keys to come in by.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bus::Bus;
use bus::nats::{Connection, bootstrap, connect};
use contract::{Realm, Service, permissions};
use loam::nats::render::{ServerPaths, render};
use loam::state::State;
use loam::state::keys::{self, NatsPublicKeys, OPERATOR};
use nkeys::KeyPair;
use testkit::{NatsServer, WAIT_MAX};

use crate::raw_client::RawClient;

pub(crate) struct TestBus {
    pub(crate) server: NatsServer,
    pub(crate) keys: NatsPublicKeys,
    /// The state directory with the keys.
    pub(crate) state: State,
    _folder: tempfile::TempDir,
}

impl TestBus {
    /// Starts the server and makes the buckets.
    pub(crate) async fn start() -> TestBus {
        let folder = tempfile::tempdir().expect("a folder");
        let state = State::at(folder.path().join("state"));
        state.prepare().expect("made");
        let keys = keys::prepare(&state).expect("made");
        let store = folder.path().join("data");
        let text = render(&Realm::default(), &keys, ServerPaths { listen: "127.0.0.1:-1", store: &store });
        // The testkit gives its server a folder of its own, and a server accepts only one.
        let text = text.replace(&format!("store_dir: \"{}\", ", store.display()), "");
        let test_bus = TestBus { server: NatsServer::start_with(&text), keys, state, _folder: folder };
        let connection = test_bus.connection("bootstrap", permissions::BOOTSTRAP_INBOX_PREFIX.into());
        let carrier = connect(&connection, WAIT_MAX).await.expect("let in");
        bootstrap(&carrier, 1).await.expect("the bootstrap role makes the buckets");
        test_bus
    }

    fn key_file(&self, name: &str) -> PathBuf {
        self.state.keys().join(format!("{name}.nk"))
    }

    fn connection(&self, name: &str, inbox_prefix: String) -> Connection {
        Connection {
            url: self.server.url(),
            nkey_file: Some(self.key_file(name)),
            name: name.into(),
            inbox_prefix,
        }
    }

    /// A user by hand.
    pub(crate) fn raw_client(&self, name: &str) -> RawClient {
        let key = read(&self.key_file(name));
        RawClient::connect(&self.server.url(), Some(&key)).expect("let in")
    }

    /// A service on the bus as services are.
    pub(crate) async fn service(&self, service: Service) -> Bus {
        self.bus(service.name(), permissions::inbox_prefix(service)).await
    }

    /// A person on the bus.
    pub(crate) async fn person(&self) -> Bus {
        self.bus(OPERATOR, permissions::inbox_prefix_of_person(OPERATOR)).await
    }

    async fn bus(&self, name: &str, inbox_prefix: String) -> Bus {
        let carrier = connect(&self.connection(name, inbox_prefix), WAIT_MAX).await.expect("let in");
        Bus::new(Arc::new(carrier), Realm::default())
    }
}

/// How a service stands in discovery.
pub(crate) fn info(service: Service) -> bus::ServiceInfo {
    bus::ServiceInfo { service, version: "0.1.0".into(), metadata: HashMap::new() }
}

fn read(path: &Path) -> KeyPair {
    let seed = std::fs::read_to_string(path).expect("readable");
    KeyPair::from_seed(seed.trim()).expect("a seed")
}
