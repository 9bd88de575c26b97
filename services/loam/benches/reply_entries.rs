//! The memory of nats-server over a million requests between accounts, with the configuration that `loam up` writes.
//!
//! `cargo bench -p loam --bench reply_entries` prints its resident set every hundred thousand requests. A test does the
//! same with fewer (`tests/permissions/reply_entries.rs`).

#[allow(dead_code, reason = "the tests of permissions need all of it")]
#[path = "../tests/permissions/raw_client.rs"]
mod raw_client;
#[allow(dead_code, reason = "its test is not for benchmarks")]
#[path = "../tests/permissions/reply_entries.rs"]
mod reply_entries;
#[allow(dead_code, reason = "the tests of permissions need all of it")]
#[path = "../tests/permissions/test_bus.rs"]
mod test_bus;

use std::time::Instant;

use reply_entries::{Traffic, WARM_UP};
use test_bus::TestBus;

const ROUNDS: usize = 10;
const REQUESTS: usize = 100_000;

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let bus = TestBus::start().await;
        let mut traffic = Traffic::on(&bus);
        for _ in 0..2 {
            traffic.run(WARM_UP, true);
        }
        println!("{:>9} {:>12} {:>7}", "requests", "resident", "seconds");
        println!("{:>9} {:>8} KiB", 0, traffic.resident_kib());
        for round in 1..=ROUNDS {
            let began = Instant::now();
            traffic.run(REQUESTS, true);
            let took = began.elapsed();
            let (requests, resident) = (round * REQUESTS, traffic.resident_kib());
            println!("{requests:>9} {resident:>8} KiB {:>7.1}", took.as_secs_f64());
        }
    });
}
