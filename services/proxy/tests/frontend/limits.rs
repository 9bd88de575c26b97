//! Slow clients, large heads, many connections.

use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use proxy::adapters::frontend::Settings;
use proxy::ports::Frontend;
use tokio::sync::mpsc;

use crate::support::{RawConnection, TestUpstream, frontend_to, full, in_time, raw_upstream};

async fn web() -> TestUpstream {
    TestUpstream::start(|request: Request<hyper::body::Incoming>| async move {
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
    let frontend = frontend_to(settings, web.address).await;
    let mut client = RawConnection::connect(frontend.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: web.exa").await;
    let response = client.response().await;
    assert_eq!((response.status, response.field("connection")), (408, Some("close")));
    assert!(response.field("x-request-id").is_some());
    assert!(client.ends().await);
    assert!(web.seen().is_empty());
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_without_a_response() {
    let mut settings = Settings::default();
    settings.timeouts.head_read = Duration::from_millis(300);
    settings.timeouts.keep_alive_idle = Duration::from_millis(300);
    let web = web().await;
    let frontend = frontend_to(settings, web.address).await;
    assert!(RawConnection::connect(frontend.address()).await.ends().await, "before its first request");
    let mut client = RawConnection::connect(frontend.address()).await;
    assert_eq!(client.get("web.example", "/").await.status, 200);
    assert!(client.ends().await, "after it");
    testkit::eventually("both are closed", async || frontend.counts().clients == 0).await;
}

#[tokio::test]
async fn a_body_that_stops_is_408_and_reaches_the_upstream_incomplete() {
    let mut settings = Settings::default();
    settings.slow_transfer.idle_max = Duration::from_millis(100);
    let (seen, mut saw) = mpsc::channel(1);
    let upstream = raw_upstream(move |_, socket| {
        let seen = seen.clone();
        async move {
            let mut connection = RawConnection::over(socket);
            connection.head().await;
            seen.send(connection.rest().await).await.expect("the test receives");
        }
    })
    .await;
    let frontend = frontend_to(settings, upstream).await;
    let mut client = RawConnection::connect(frontend.address()).await;
    client
        .send("POST / HTTP/1.1\r\nHost: web.example\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        .await;
    assert_eq!(client.response().await.status, 408);
    assert_eq!(
        in_time("what the upstream received", saw.recv()).await.expect("it received the request"),
        "4\r\nhalf\r\n"
    );
}

#[tokio::test]
async fn a_slow_upload_may_go_on_as_long_as_bytes_arrive() {
    let mut settings = Settings::default();
    settings.timeouts.head_read = Duration::from_secs(3);
    settings.timeouts.first_byte = Duration::from_secs(3);
    settings.slow_transfer.idle_max = Duration::from_secs(3);
    settings.slow_transfer.bytes_per_second_min = 10;
    let web = web().await;
    let frontend = frontend_to(settings, web.address).await;
    let mut client = RawConnection::connect(frontend.address()).await;
    client.send("POST / HTTP/1.1\r\nHost: web.example\r\nContent-Length: 80\r\n\r\n").await;
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..80 {
        tick.tick().await;
        client.send("x").await;
    }
    assert_eq!(client.response().await.body.len(), 80, "it took longer than any single limit");
}

#[tokio::test]
async fn an_upload_below_the_minimum_rate_is_408_though_it_never_stops() {
    let mut settings = Settings::default();
    settings.slow_transfer.grace = Duration::from_millis(100);
    settings.slow_transfer.bytes_per_second_min = 10_000;
    let web = web().await;
    let frontend = frontend_to(settings, web.address).await;
    let mut client = RawConnection::connect(frontend.address()).await;
    client.send("POST / HTTP/1.1\r\nHost: web.example\r\nContent-Length: 100000\r\n\r\n").await;
    let (mut reading, mut writing) = client.socket.into_split();
    let upload = async {
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        loop {
            tick.tick().await;
            if tokio::io::AsyncWriteExt::write_all(&mut writing, b"x").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut response = [0; 12];
    tokio::select! {
        read = in_time("a response", tokio::io::AsyncReadExt::read_exact(&mut reading, &mut response)) => {
            read.expect("a response");
        }
        () = upload => unreachable!("it sends for ever"),
    }
    assert_eq!(&response, b"HTTP/1.1 408");
}

#[tokio::test]
async fn a_client_that_does_not_read_its_response_is_disconnected() {
    let mut settings = Settings::default();
    settings.slow_transfer.idle_max = Duration::from_millis(200);
    let upstream = raw_upstream(|_, socket| async move {
        let mut connection = RawConnection::over(socket);
        connection.head().await;
        connection.send("HTTP/1.1 200 OK\r\n\r\n").await;
        let part = vec![0; 1024 * 1024];
        while tokio::io::AsyncWriteExt::write_all(&mut connection.socket, &part).await.is_ok() {}
    })
    .await;
    let frontend = frontend_to(settings, upstream).await;
    let mut client = RawConnection::connect(frontend.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: web.example\r\n\r\n").await;
    client.head().await;
    testkit::eventually("the frontend disconnects", async || frontend.counts().clients == 0).await;
}

#[tokio::test]
async fn an_upstream_that_stops_within_its_response_is_aborted() {
    let mut settings = Settings::default();
    settings.timeouts.upstream_idle = Duration::from_millis(100);
    let upstream = raw_upstream(|_, socket| async move {
        let mut connection = RawConnection::over(socket);
        let kind =
            if connection.head().await.contains("GET /events") { "text/event-stream" } else { "text/html" };
        connection
            .send(format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: 20\r\n\r\nhalf"))
            .await;
        connection.rest().await;
    })
    .await;
    let frontend = frontend_to(settings, upstream).await;
    let mut client = RawConnection::connect(frontend.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: web.example\r\n\r\n").await;
    assert!(client.rest().await.ends_with("half"));

    let mut event_stream = RawConnection::connect(frontend.address()).await;
    event_stream.send("GET /events HTTP/1.1\r\nHost: web.example\r\n\r\n").await;
    event_stream.head().await;
    event_stream.bytes(4).await;
    // A second client whose response is aborted shows that the time has passed.
    let mut another = RawConnection::connect(frontend.address()).await;
    another.send("GET / HTTP/1.1\r\nHost: web.example\r\n\r\n").await;
    another.rest().await;
    testkit::eventually("only the event stream is left", async || frontend.counts().clients == 1).await;
}

#[tokio::test]
async fn heads_are_bounded_in_bytes_fields_and_request_line() {
    let web = web().await;
    let frontend = frontend_to(Settings::default(), web.address).await;
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
        let mut client = RawConnection::connect(frontend.address()).await;
        client.send(head).await;
        assert_eq!(client.response().await.status, status);
    }
    assert_eq!(web.seen().len(), 1);
}

#[tokio::test]
async fn one_client_cannot_use_all_connections() {
    let mut settings = Settings::default();
    settings.limits.connections_per_client_max = 2;
    let web = web().await;
    let frontend = frontend_to(settings, web.address).await;
    let mut first = RawConnection::connect(frontend.address()).await;
    let mut second = RawConnection::connect(frontend.address()).await;
    assert_eq!(
        (first.get("web.example", "/").await.status, second.get("web.example", "/").await.status),
        (200, 200)
    );
    let mut third = RawConnection::connect(frontend.address()).await;
    let refused = third.response().await;
    assert_eq!((refused.status, refused.field("retry-after")), (429, Some("10")));
    assert!(third.ends().await);
    drop(first);
    testkit::eventually("a connection is free", async || frontend.counts().clients == 1).await;
    assert_eq!(RawConnection::connect(frontend.address()).await.get("web.example", "/").await.status, 200);
}

#[tokio::test]
async fn when_all_connections_are_used_the_next_client_waits() {
    let mut settings = Settings::default();
    settings.limits.connections_max = 1;
    let web = web().await;
    let frontend = frontend_to(settings, web.address).await;
    let mut first = RawConnection::connect(frontend.address()).await;
    assert_eq!(first.get("web.example", "/").await.status, 200);
    let mut second = RawConnection::connect(frontend.address()).await;
    second.send("GET /second HTTP/1.1\r\nHost: web.example\r\n\r\n").await;
    assert_eq!(first.get("web.example", "/first").await.status, 200);
    assert!(web.seen().iter().all(|head| head.uri != "/second"));
    drop(first);
    assert_eq!(second.response().await.status, 200);
}

#[tokio::test]
async fn a_client_that_does_not_read_a_response_over_http_2_is_disconnected_too() {
    let mut settings = Settings::default();
    settings.slow_transfer.idle_max = Duration::from_millis(200);
    settings.slow_transfer.bytes_per_second_min = 100_000_000;
    let upstream = raw_upstream(|_, socket| async move {
        let mut connection = RawConnection::over(socket);
        connection.head().await;
        connection.send("HTTP/1.1 200 OK\r\n\r\n").await;
        let part = vec![0; 1024 * 1024];
        while tokio::io::AsyncWriteExt::write_all(&mut connection.socket, &part).await.is_ok() {}
    })
    .await;
    let frontend = frontend_to(settings, upstream).await;
    let mut client = crate::support::http2(frontend.address()).await;
    let request = Request::get("http://web.example/").body(crate::support::empty()).expect("valid");
    let unread = client.send_request(request).await.expect("a response");
    testkit::eventually("the frontend disconnects", async || frontend.counts().clients == 0).await;
    drop(unread);
}

#[tokio::test]
async fn an_idle_http_2_connection_is_closed() {
    let mut settings = Settings::default();
    settings.timeouts.keep_alive_idle = Duration::from_millis(100);
    let web = web().await;
    let frontend = frontend_to(settings, web.address).await;
    let mut client = crate::support::http2(frontend.address()).await;
    let request = Request::get("http://web.example/").body(crate::support::empty()).expect("valid");
    assert_eq!(client.send_request(request).await.expect("a response").status(), 200);
    testkit::eventually("it is closed", async || frontend.counts().clients == 0).await;
}
