//! A real server with the settings that `loam up` writes, and the keys to come in by.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use bus::Bus;
use bus::nats::{Connection, bootstrap, connect};
use contract::permissions::User;
use contract::{HostName, Realm, Service};
use loam::nats::render::{ServerPaths, render};
use loam::state::State;
use loam::state::keys::{self, NatsPublicKeys, OPERATOR, first_users};
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
    /// Starts the server and makes the tables.
    pub(crate) async fn start() -> TestBus {
        TestBus::start_with(|configuration| configuration).await
    }

    /// The same with another configuration, made of the usual one.
    pub(crate) async fn start_with(change: impl FnOnce(String) -> String) -> TestBus {
        let folder = tempfile::tempdir().expect("a folder");
        let state = State::at(folder.path().join("state"));
        state.prepare().expect("made");
        let mut keys = keys::prepare(&state).expect("made");
        let joining = keys::read_or_make(&keys::file_of(&state.keys(), &joining_host())).expect("made");
        keys.users.push((joining_host(), joining.public_key()));
        let text = change(configuration(&keys));
        let test_bus = TestBus { server: NatsServer::start_with(&text), keys, state, _folder: folder };
        for service in Service::ALL {
            test_bus.make_tables(service).await;
        }
        test_bus
    }

    /// Has the server read settings that accept these keys.
    pub(crate) fn reload(&self, keys: &NatsPublicKeys) {
        self.server.reload(&configuration(keys));
    }

    /// Makes the tables of a service that are not there.
    pub(crate) async fn make_tables(&self, service: Service) {
        if contract::bucket::of_service(service).is_empty() {
            return;
        }
        let transport = connect(&self.connection(User::Bootstrap(service)), WAIT_MAX).await.expect("let in");
        bootstrap(&transport, service, 1).await.expect("the bootstrap user makes the tables");
    }

    fn connection(&self, user: User) -> Connection {
        Connection {
            url: self.server.url(),
            nkey_file: Some(keys::file_of(&self.state.keys(), &user)),
            ca_file: None,
            name: user.to_string(),
            user,
        }
    }

    /// A user by hand.
    pub(crate) fn raw_client(&self, user: &User) -> RawClient {
        let key = read(&keys::file_of(&self.state.keys(), user));
        RawClient::connect(&self.server.url(), Some(&key)).expect("let in")
    }

    /// A service by hand.
    pub(crate) fn raw_service(&self, service: Service) -> RawClient {
        self.raw_client(&User::Service(service))
    }

    /// A person by hand.
    pub(crate) fn raw_person(&self) -> RawClient {
        self.raw_client(&operator())
    }

    /// A service on the bus as services are.
    pub(crate) async fn service(&self, service: Service) -> Bus {
        self.bus(User::Service(service)).await
    }

    /// A person on the bus.
    pub(crate) async fn person(&self) -> Bus {
        self.bus(operator()).await
    }

    async fn bus(&self, user: User) -> Bus {
        let transport = connect(&self.connection(user), WAIT_MAX).await.expect("let in");
        Bus::new(Arc::new(transport), Realm::default())
    }
}

fn configuration(keys: &NatsPublicKeys) -> String {
    let store = Path::new("/data");
    let paths = ServerPaths { listen: "127.0.0.1:-1", store, cluster: None, tls: None };
    // The testkit gives its server a folder of its own, and a server accepts only one.
    render(&Realm::default(), keys, paths).replace("store_dir: \"/data\", ", "")
}

pub(crate) fn operator() -> User {
    User::Person(OPERATOR.into())
}

/// A host with a join token.
pub(crate) fn joining_host() -> User {
    User::JoiningHost(HostName::new("h2").expect("fits"))
}

/// A user of every kind.
pub(crate) fn all_users() -> Vec<User> {
    first_users().into_iter().chain([joining_host()]).collect()
}

/// How a service stands in discovery.
pub(crate) fn info(service: Service) -> bus::ServiceInfo {
    bus::ServiceInfo { service, version: "0.1.0".into(), metadata: HashMap::new() }
}

fn read(path: &Path) -> KeyPair {
    let seed = std::fs::read_to_string(path).expect("readable");
    KeyPair::from_seed(seed.trim()).expect("a seed")
}
