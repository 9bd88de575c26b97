//! For each request from another account the server keeps an entry until the reply came. Entries that pile up would fill
//! its memory in time: its resident set is compared before and after many requests.

use std::time::Duration;

use contract::Service;
use testkit::NatsServer;

use crate::raw_client::RawClient;
use crate::test_bus::TestBus;

/// Requests in flight at a time: few enough that the server never waits for us to read.
const BATCH: usize = 250;
/// One of two warm-ups.
pub(crate) const WARM_UP: usize = 10_000;
/// How much the resident set may grow.
pub(crate) const GROWTH_PERCENT_MAX: u64 = 5;
/// The server's garbage collector gives memory back a little later.
const SETTLE: Duration = Duration::from_secs(2);

/// A person who asks and a service of another account that answers.
pub(crate) struct Traffic<'a> {
    server: &'a NatsServer,
    asker: RawClient,
    answerer: RawClient,
}

impl Traffic<'_> {
    pub(crate) fn on(bus: &TestBus) -> Traffic<'_> {
        let (mut asker, mut answerer) = (bus.raw_person(), bus.raw_service(Service::Provisioner));
        asker.subscribe("_INBOX_operator.>");
        answerer.subscribe("loam.v1.provisioner.list_vms");
        assert!(answerer.round().errors.is_empty() && asker.round().errors.is_empty());
        Traffic { server: &bus.server, asker, answerer }
    }

    /// Sends requests and, if asked for, their replies.
    pub(crate) fn run(&mut self, requests: usize, with_replies: bool) {
        for _ in 0..requests / BATCH {
            for _ in 0..BATCH {
                self.asker.publish("loam.v1.provisioner.list_vms", "_INBOX_operator.x", &[], "{}");
            }
            let mut answered = 0;
            while answered < BATCH {
                assert!(self.asker.round().errors.is_empty());
                for request in self.answerer.round().messages {
                    answered += 1;
                    if with_replies {
                        self.answerer.publish(&request.reply.expect("a reply subject"), "", &[], "[]");
                    }
                }
            }
            let mut received = 0;
            while with_replies && received < BATCH {
                assert!(self.answerer.round().errors.is_empty());
                received += self.asker.round().messages.len();
            }
        }
    }

    /// The smallest resident set of the server within a moment, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let read = || {
            let status =
                std::fs::read_to_string(format!("/proc/{}/status", self.server.pid())).expect("it runs");
            let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
            line.split_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok()).expect("a number")
        };
        let samples = (0..10).map(|_| {
            std::thread::sleep(SETTLE / 10);
            read()
        });
        samples.min().expect("ten samples")
    }
}

fn growth_percent(before: u64, after: u64) -> u64 {
    after.saturating_sub(before) * 100 / before
}

#[tokio::test(flavor = "multi_thread")]
async fn answered_requests_of_other_accounts_leave_nothing_in_the_servers_memory() {
    let bus = TestBus::start().await;
    let mut traffic = Traffic::on(&bus);
    for _ in 0..2 {
        traffic.run(WARM_UP, true);
    }
    let before = traffic.resident_kib();
    traffic.run(50_000, true);
    let after = traffic.resident_kib();
    assert!(growth_percent(before, after) <= GROWTH_PERCENT_MAX, "{before} KiB, then {after} KiB");
    // So an entry that stays would be seen: requests without a reply leave one each.
    traffic.run(50_000, false);
    let piled_up = traffic.resident_kib();
    assert!(growth_percent(after, piled_up) > GROWTH_PERCENT_MAX, "{after} KiB, then {piled_up} KiB");
}
