//! What our layer costs: a request through a served opened beside a bare NATS echo, on one server, in one run.
//!
//! `cargo bench -p bus --bench round_trip` prints medians, and our median as a multiple of the bare one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::{Bus, ServiceInfo};
use contract::scheduler::{RemoveSchedule, UnknownSchedule};
use contract::{Realm, Service};
use futures::StreamExt;
use testkit::NatsServer;

const WARM_UP: usize = 500;
const ROUNDS: usize = 5_000;
const DEADLINE: Duration = Duration::from_secs(5);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(measure());
}

async fn measure() {
    let server = NatsServer::start();
    let bare_server = async_nats::connect(server.url()).await.expect("connected");
    let bare_client = async_nats::connect(server.url()).await.expect("connected");
    let mut questions = bare_server.subscribe("bare.echo").await.expect("subscribed");
    bare_server.flush().await.expect("flushed");
    let echo = bare_server.clone();
    tokio::spawn(async move {
        while let Some(question) = questions.next().await {
            if let Some(reply) = question.reply {
                echo.publish(reply, question.payload).await.expect("connected");
            }
        }
    });

    let server_bus = connect(&server, Service::Scheduler).await;
    let mut opened = server_bus.server(ServiceInfo {
        service: Service::Scheduler,
        version: "0.1.0".into(),
        metadata: Default::default(),
    });
    opened.on::<RemoveSchedule, _, _>(|call| async move {
        Err(bus::ErrorReply::Refused(UnknownSchedule { id: call.request.id }))
    });
    let _server = opened.open().await.expect("opened");
    let caller = connect(&server, Service::Backup).await;
    let request = RemoveSchedule { id: "nightly".parse().expect("valid") };

    // Alternating, so that whatever else the machine does hits both alike.
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for round in 0..WARM_UP + ROUNDS {
        let begun = Instant::now();
        bare_client.request("bare.echo", vec![7u8; 32].into()).await.expect("echoed");
        let bare_took = begun.elapsed();
        let begun = Instant::now();
        caller.call(&request, DEADLINE).await.expect_err("refused, as served");
        let ours_took = begun.elapsed();
        if round >= WARM_UP {
            bare.push(bare_took);
            ours.push(ours_took);
        }
    }
    let (bare, ours) = (quantiles(bare), quantiles(ours));
    println!("round trips on loopback, {ROUNDS} of each, alternating");
    println!("{:<28} {:>10} {:>10}", "", "median", "p99");
    println!("{:<28} {:>7.1} µs {:>7.1} µs", "bare request-reply echo", micros(bare.0), micros(bare.1));
    println!("{:<28} {:>7.1} µs {:>7.1} µs", "request through a service", micros(ours.0), micros(ours.1));
    println!("ratio of medians: {:.2}", ours.0.as_secs_f64() / bare.0.as_secs_f64());
}

async fn connect(server: &NatsServer, service: Service) -> Bus {
    let connection = bus::nats::Connection {
        url: server.url(),
        nkey_file: None,
        ca_file: None,
        name: format!("bench-{service}"),
        user: contract::permissions::User::Service(service),
    };
    Bus::new(Arc::new(bus::nats::connect(&connection, DEADLINE).await.expect("connected")), Realm::default())
}

fn quantiles(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
