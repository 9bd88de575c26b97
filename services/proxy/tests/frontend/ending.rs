//! Stopping a frontend.

use std::time::Duration;

use http::{Request, Response};
use proxy::adapters::frontend::{Settings, StopReport};
use proxy::ports::Frontend;
use tokio::net::TcpStream;

use crate::support::{
    RawConnection, STEP_TIMEOUT, TestUpstream, channel_body, empty, frontend_to, full, http1, http2, in_time,
    raw_upstream, read,
};

#[tokio::test]
async fn running_requests_are_finished_and_idle_connections_closed() {
    let (feed, body) = channel_body();
    let body = std::sync::Mutex::new(Some(body));
    let web = TestUpstream::start(move |request: Request<_>| {
        let body = (request.uri() == "/slow").then(|| body.lock().expect("never poisoned").take()).flatten();
        async move { Response::new(body.unwrap_or_else(|| full("quick"))) }
    })
    .await;
    let frontend = frontend_to(Settings::default(), web.address).await;
    let address = frontend.address();
    let mut idle = RawConnection::connect(address).await;
    assert_eq!(idle.get("web.example", "/").await.status, 200);
    let mut idle_http2 = http2(address).await;
    let request = Request::get("http://web.example/").body(empty()).expect("valid");
    read(idle_http2.send_request(request).await.expect("a response")).await;
    let silent = RawConnection::connect(address).await;
    testkit::eventually("all are open", async || frontend.counts().clients == 3).await;
    let request = Request::get("/slow").header("host", "web.example").body(empty()).expect("valid");
    let busy = in_time("the head", http1(address).await.send_request(request)).await.expect("a response");

    let ending = tokio::spawn(async move { frontend.drain(STEP_TIMEOUT).await });
    assert!(idle.ends().await);
    feed.send(Ok("the rest".into())).await.expect("the upstream reads");
    drop(feed);
    assert_eq!(read(busy).await.1, "the rest");
    assert_eq!(in_time("the end", ending).await.expect("no panic"), StopReport { open: 4, aborted: 0 });
    assert!(TcpStream::connect(address).await.is_err(), "the listener is closed");
    drop(silent);
}

#[tokio::test]
async fn what_is_still_open_at_the_timeout_is_aborted_and_counted() {
    let upstream = raw_upstream(|_, socket| async move {
        let mut connection = RawConnection::over(socket);
        if connection.head().await.contains("upgrade: websocket") {
            connection
                .send("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
                .await;
        }
        connection.rest().await;
    })
    .await;
    let frontend = frontend_to(Settings::default(), upstream).await;
    let mut tunnel = RawConnection::connect(frontend.address()).await;
    tunnel
        .send("GET / HTTP/1.1\r\nHost: web.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await;
    tunnel.head().await;
    let mut waiting = RawConnection::connect(frontend.address()).await;
    waiting.send("GET / HTTP/1.1\r\nHost: web.example\r\n\r\n").await;
    testkit::eventually("both are open", async || frontend.counts().clients == 2).await;
    let ended = in_time("the end", frontend.drain(Duration::from_millis(100))).await;
    assert_eq!(ended, StopReport { open: 2, aborted: 2 });
    assert!(tunnel.ends().await && waiting.ends().await);
}

#[tokio::test]
async fn dropping_a_frontend_stops_it_too() {
    let upstream = raw_upstream(|_, socket| async move {
        RawConnection::over(socket).rest().await;
    })
    .await;
    let frontend = frontend_to(Settings::default(), upstream).await;
    let mut client = RawConnection::connect(frontend.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: web.example\r\n\r\n").await;
    drop(frontend);
    assert!(client.ends().await);
}
