//! The server reads its settings again while requests are under way: none of them fails, and whoever is not in them any
//! more is out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bus::{Bus, ErrorReply, RunningServer};
use contract::message::NeverRefused;
use contract::permissions::User;
use contract::provisioner::ListVms;
use contract::{NoPrevious, Service, Stored, bucket};
use nkeys::KeyPair;
use testkit::eventually;
use tokio::task::JoinSet;

use crate::raw_client::RawClient;
use crate::test_bus::{TestBus, info};

const SOON: Duration = Duration::from_secs(20);
/// Some answers take long enough that requests are under way at each reload, the others come at once.
const ANSWER_AFTER: Duration = Duration::from_millis(100);
const RELOADS: usize = 10;
const CALLERS: usize = 24;

/// Requests of a person and of a service, and rows written, until told to stop.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    loops: JoinSet<()>,
    _server: RunningServer,
}

#[derive(Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Counted {
    pub(crate) count: u64,
}

impl Stored for Counted {
    const VERSION: u16 = 1;
    type Previous = NoPrevious;

    fn migrate(previous: NoPrevious) -> Counted {
        match previous {}
    }
}

impl Load {
    /// Begins; the loops panic at the first failure.
    pub(crate) async fn begin(provisioner: Bus, callers: [Bus; 2]) -> Load {
        let mut server = provisioner.server(info(Service::Provisioner));
        let turn = AtomicUsize::new(0);
        server.on::<ListVms, _, _>(move |_| {
            let is_slow = turn.fetch_add(1, Ordering::Relaxed).is_multiple_of(8);
            async move {
                if is_slow {
                    tokio::time::sleep(ANSWER_AFTER).await;
                }
                Ok::<_, ErrorReply<NeverRefused>>(Vec::new())
            }
        });
        let server = server.open().await.expect("open");
        let (stop, done, mut loops) = (Arc::<AtomicBool>::default(), Arc::default(), JoinSet::new());
        for caller in callers.iter().cycle().take(CALLERS) {
            let (caller, stop, done) = (caller.clone(), Arc::clone(&stop), Arc::<AtomicUsize>::clone(&done));
            loops.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    caller.call(&ListVms {}, SOON).await.expect("a request under way goes on");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let (stopped, table) = (Arc::clone(&stop), provisioner.table::<Counted>(bucket::SEEDS));
        loops.spawn(async move {
            let mut revision = table.create("counted", &Counted { count: 0 }).await.expect("written");
            let mut count = 0;
            while !stopped.load(Ordering::Relaxed) {
                count += 1;
                revision = table.update("counted", &Counted { count }, revision).await.expect("written");
                let read = table.get("counted").await.expect("read").expect("there");
                assert_eq!(read.value.count, count);
            }
        });
        Load { stop, done, loops, _server: server }
    }

    /// Waits until that many more requests were answered.
    pub(crate) async fn goes_on(&self, count: usize) {
        let from = self.done.load(Ordering::Relaxed);
        eventually("requests are answered", async || {
            self.done.load(Ordering::Relaxed) >= from + count || self.loops.is_empty()
        })
        .await;
    }

    /// Ends; panics where a request failed.
    pub(crate) async fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.loops.join_next().await {
            ended.expect("no request failed");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_and_hosts_come_and_go_by_reload_while_requests_and_rows_go_on() {
    let test_bus = TestBus::start().await;
    let callers = [test_bus.person().await, test_bus.service(Service::Proxy).await];
    let load = Load::begin(test_bus.service(Service::Provisioner).await, callers).await;
    let url = test_bus.server.url();
    for round in 0..RELOADS {
        let pair = KeyPair::new_user();
        let user = match round % 2 {
            0 => User::Person(format!("ada{round}")),
            _ => User::Service(Service::Provisioner),
        };
        let mut keys = test_bus.keys.clone();
        keys.users.push((user, pair.public_key()));
        test_bus.reload(&keys);
        eventually("the new key is let in", async || RawClient::connect(&url, Some(&pair)).is_ok()).await;
        let mut client = RawClient::connect(&url, Some(&pair)).expect("let in");
        load.goes_on(CALLERS).await;
        test_bus.reload(&test_bus.keys);
        eventually("the removed key is kept out", async || RawClient::connect(&url, Some(&pair)).is_err())
            .await;
        client.wait_for_end();
    }
    load.end().await;
}
