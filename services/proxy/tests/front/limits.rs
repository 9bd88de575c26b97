//! Slow clients, large heads, many connections.

use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use proxy::front::Settings;
use tokio::sync::mpsc;

use crate::world::{Machine, Wire, front_to, full, raw_machine, soon};

async fn web() -> Machine {
    Machine::start(|request: Request<hyper::body::Incoming>| async move {
        match request.into_body().collect().await {
            Ok(body) => Response::new(full(body.to_bytes())),
            Err(_) => Response::new(full("incomplete")),
        }
    })
    .await
}

#[tokio::test]
async fn a_head_that_does_not_end_is_408() {
    let mut settings = Settings::default();
    settings.timeouts.head_read = Duration::from_millis(100);
    let web = web().await;
    let front = front_to(settings, web.address).await;
    let mut client = Wire::connect(front.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: web.exa").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.field("connection")), (408, Some("close")));
    assert!(answer.field("x-request-id").is_some());
    assert!(client.ends().await);
    assert!(web.seen().is_empty());
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed_without_a_word() {
    let mut settings = Settings::default();
    settings.timeouts.head_read = Duration::from_millis(300);
    settings.timeouts.keep_alive_idle = Duration::from_millis(300);
    let web = web().await;
    let front = front_to(settings, web.address).await;
    assert!(Wire::connect(front.address()).await.ends().await, "before its first request");
    let mut client = Wire::connect(front.address()).await;
    assert_eq!(client.get("web.example", "/").await.status, 200);
    assert!(client.ends().await, "after it");
    testkit::eventually("both are gone", async || front.open().connections == 0).await;
}

#[tokio::test]
async fn a_body_that_stops_is_408_and_reaches_the_machine_as_broken_off() {
    let mut settings = Settings::default();
    settings.pace.idle_max = Duration::from_millis(100);
    let (seen, mut saw) = mpsc::channel(1);
    let machine = raw_machine(move |_, socket| {
        let seen = seen.clone();
        async move {
            let mut wire = Wire::over(socket);
            wire.head().await;
            seen.send(wire.rest().await).await.expect("the test listens");
        }
    })
    .await;
    let front = front_to(settings, machine).await;
    let mut client = Wire::connect(front.address()).await;
    client
        .send("POST / HTTP/1.1\r\nHost: web.example\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        .await;
    assert_eq!(client.answer().await.status, 408);
    assert_eq!(soon("what the machine saw", saw.recv()).await.expect("it was asked"), "4\r\nhalf\r\n");
}

#[tokio::test]
async fn a_slow_upload_is_welcome_as_long_as_it_moves() {
    let mut settings = Settings::default();
    settings.timeouts.head_read = Duration::from_secs(3);
    settings.timeouts.first_byte = Duration::from_secs(3);
    settings.pace.idle_max = Duration::from_secs(3);
    settings.pace.bytes_per_second_min = 10;
    let web = web().await;
    let front = front_to(settings, web.address).await;
    let mut client = Wire::connect(front.address()).await;
    client.send("POST / HTTP/1.1\r\nHost: web.example\r\nContent-Length: 80\r\n\r\n").await;
    let mut beat = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..80 {
        beat.tick().await;
        client.send("x").await;
    }
    assert_eq!(client.answer().await.body.len(), 80, "it took far longer than any single limit");
}

#[tokio::test]
async fn an_upload_below_the_least_rate_is_cut_though_it_never_stops() {
    let mut settings = Settings::default();
    settings.pace.grace = Duration::from_millis(100);
    settings.pace.bytes_per_second_min = 10_000;
    let web = web().await;
    let front = front_to(settings, web.address).await;
    let mut client = Wire::connect(front.address()).await;
    client.send("POST / HTTP/1.1\r\nHost: web.example\r\nContent-Length: 100000\r\n\r\n").await;
    let (mut reading, mut writing) = client.socket.into_split();
    let trickle = async {
        let mut beat = tokio::time::interval(Duration::from_millis(5));
        loop {
            beat.tick().await;
            if tokio::io::AsyncWriteExt::write_all(&mut writing, b"x").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut answer = [0; 12];
    tokio::select! {
        read = soon("an answer", tokio::io::AsyncReadExt::read_exact(&mut reading, &mut answer)) => {
            read.expect("an answer");
        }
        () = trickle => unreachable!("it trickles for ever"),
    }
    assert_eq!(&answer, b"HTTP/1.1 408");
}

#[tokio::test]
async fn a_client_that_does_not_take_its_answer_is_let_go() {
    let mut settings = Settings::default();
    settings.pace.idle_max = Duration::from_millis(200);
    let machine = raw_machine(|_, socket| async move {
        let mut wire = Wire::over(socket);
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\n\r\n").await;
        let piece = vec![0; 1024 * 1024];
        while tokio::io::AsyncWriteExt::write_all(&mut wire.socket, &piece).await.is_ok() {}
    })
    .await;
    let front = front_to(settings, machine).await;
    let mut client = Wire::connect(front.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: web.example\r\n\r\n").await;
    client.head().await;
    testkit::eventually("the front gives up", async || front.open().connections == 0).await;
}

#[tokio::test]
async fn a_machine_that_falls_silent_within_its_answer_is_given_up() {
    let mut settings = Settings::default();
    settings.timeouts.upstream_idle = Duration::from_millis(100);
    let machine = raw_machine(|_, socket| async move {
        let mut wire = Wire::over(socket);
        let kind = if wire.head().await.contains("GET /events") { "text/event-stream" } else { "text/html" };
        wire.send(format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: 20\r\n\r\nhalf")).await;
        wire.rest().await;
    })
    .await;
    let front = front_to(settings, machine).await;
    let mut client = Wire::connect(front.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: web.example\r\n\r\n").await;
    assert!(client.rest().await.ends_with("half"));

    let mut listener = Wire::connect(front.address()).await;
    listener.send("GET /events HTTP/1.1\r\nHost: web.example\r\n\r\n").await;
    listener.head().await;
    listener.bytes(4).await;
    // A second client that is given up shows that the time is over.
    let mut another = Wire::connect(front.address()).await;
    another.send("GET / HTTP/1.1\r\nHost: web.example\r\n\r\n").await;
    another.rest().await;
    testkit::eventually("only the listener is left", async || front.open().connections == 1).await;
}

#[tokio::test]
async fn heads_are_bounded_in_bytes_fields_and_first_line() {
    let web = web().await;
    let front = front_to(Settings::default(), web.address).await;
    let many: String = (0..100).map(|number| format!("x-{number}: 1\r\n")).collect();
    for (head, status) in [
        (format!("GET /{} HTTP/1.1\r\nHost: web.example\r\n\r\n", "a".repeat(17_000)), 414),
        (format!("GET / HTTP/1.1\r\nHost: web.example\r\nx: {}\r\n\r\n", "a".repeat(33_000)), 431),
        (format!("GET / HTTP/1.1\r\nHost: web.example\r\n{many}\r\n"), 431),
        (
            format!(
                "GET /{} HTTP/1.1\r\nHost: web.example\r\nx: {}\r\n\r\n",
                "a".repeat(15_000),
                "a".repeat(15_000)
            ),
            200,
        ),
    ] {
        let mut client = Wire::connect(front.address()).await;
        client.send(head).await;
        assert_eq!(client.answer().await.status, status);
    }
    assert_eq!(web.seen().len(), 1);
}

#[tokio::test]
async fn one_client_cannot_take_all_places() {
    let mut settings = Settings::default();
    settings.limits.connections_per_origin_max = 2;
    let web = web().await;
    let front = front_to(settings, web.address).await;
    let mut first = Wire::connect(front.address()).await;
    let mut second = Wire::connect(front.address()).await;
    assert_eq!(
        (first.get("web.example", "/").await.status, second.get("web.example", "/").await.status),
        (200, 200)
    );
    let mut third = Wire::connect(front.address()).await;
    let refused = third.answer().await;
    assert_eq!((refused.status, refused.field("retry-after")), (429, Some("10")));
    assert!(third.ends().await);
    drop(first);
    testkit::eventually("a place is free", async || front.open().connections == 1).await;
    assert_eq!(Wire::connect(front.address()).await.get("web.example", "/").await.status, 200);
}

#[tokio::test]
async fn when_all_places_are_taken_the_next_client_waits() {
    let mut settings = Settings::default();
    settings.limits.connections_max = 1;
    let web = web().await;
    let front = front_to(settings, web.address).await;
    let mut first = Wire::connect(front.address()).await;
    assert_eq!(first.get("web.example", "/").await.status, 200);
    let mut second = Wire::connect(front.address()).await;
    second.send("GET /second HTTP/1.1\r\nHost: web.example\r\n\r\n").await;
    assert_eq!(first.get("web.example", "/first").await.status, 200);
    assert!(web.seen().iter().all(|head| head.uri != "/second"));
    drop(first);
    assert_eq!(second.answer().await.status, 200);
}

#[tokio::test]
async fn a_client_that_leaves_an_answer_lying_over_http_2_is_let_go_too() {
    let mut settings = Settings::default();
    settings.pace.idle_max = Duration::from_millis(200);
    settings.pace.bytes_per_second_min = 100_000_000;
    let machine = raw_machine(|_, socket| async move {
        let mut wire = Wire::over(socket);
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\n\r\n").await;
        let piece = vec![0; 1024 * 1024];
        while tokio::io::AsyncWriteExt::write_all(&mut wire.socket, &piece).await.is_ok() {}
    })
    .await;
    let front = front_to(settings, machine).await;
    let mut client = crate::world::http2(front.address()).await;
    let request = Request::get("http://web.example/").body(crate::world::empty()).expect("valid");
    let lying = client.send_request(request).await.expect("an answer");
    testkit::eventually("the front gives up", async || front.open().connections == 0).await;
    drop(lying);
}

#[tokio::test]
async fn an_idle_http_2_connection_is_closed() {
    let mut settings = Settings::default();
    settings.timeouts.keep_alive_idle = Duration::from_millis(100);
    let web = web().await;
    let front = front_to(settings, web.address).await;
    let mut client = crate::world::http2(front.address()).await;
    let request = Request::get("http://web.example/").body(crate::world::empty()).expect("valid");
    assert_eq!(client.send_request(request).await.expect("an answer").status(), 200);
    testkit::eventually("it is gone", async || front.open().connections == 0).await;
}
