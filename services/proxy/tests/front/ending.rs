//! The end of a front.

use std::time::Duration;

use http::{Request, Response};
use proxy::front::{Ended, Settings};
use tokio::net::TcpStream;

use crate::world::{
    Machine, PATIENCE, Wire, empty, fed, front_to, full, http1, http2, raw_machine, read, soon,
};

#[tokio::test]
async fn requests_under_way_are_finished_and_idle_connections_closed() {
    let (feed, body) = fed();
    let body = std::sync::Mutex::new(Some(body));
    let web = Machine::start(move |request: Request<_>| {
        let body = (request.uri() == "/slow").then(|| body.lock().expect("never poisoned").take()).flatten();
        async move { Response::new(body.unwrap_or_else(|| full("quick"))) }
    })
    .await;
    let front = front_to(Settings::default(), web.address).await;
    let address = front.address();
    let mut idle = Wire::connect(address).await;
    assert_eq!(idle.get("web.example", "/").await.status, 200);
    let mut idle_http2 = http2(address).await;
    let request = Request::get("http://web.example/").body(empty()).expect("valid");
    read(idle_http2.send_request(request).await.expect("an answer")).await;
    let silent = Wire::connect(address).await;
    testkit::eventually("all are known", async || front.open().connections == 3).await;
    let request = Request::get("/slow").header("host", "web.example").body(empty()).expect("valid");
    let busy = soon("the head", http1(address).await.send_request(request)).await.expect("an answer");

    let ending = tokio::spawn(async move { front.stop(PATIENCE).await });
    assert!(idle.ends().await);
    feed.send(Ok("the rest".into())).await.expect("the machine listens");
    drop(feed);
    assert_eq!(read(busy).await.1, "the rest");
    assert_eq!(soon("the end", ending).await.expect("no panic"), Ended { open: 4, cut: 0 });
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    drop(silent);
}

#[tokio::test]
async fn what_is_still_under_way_at_the_deadline_is_cut_and_counted() {
    let machine = raw_machine(|_, socket| async move {
        let mut wire = Wire::over(socket);
        if wire.head().await.contains("upgrade: websocket") {
            wire.send("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").await;
        }
        wire.rest().await;
    })
    .await;
    let front = front_to(Settings::default(), machine).await;
    let mut tunnel = Wire::connect(front.address()).await;
    tunnel
        .send("GET / HTTP/1.1\r\nHost: web.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await;
    tunnel.head().await;
    let mut waiting = Wire::connect(front.address()).await;
    waiting.send("GET / HTTP/1.1\r\nHost: web.example\r\n\r\n").await;
    testkit::eventually("both are known", async || front.open().connections == 2).await;
    let ended = soon("the end", front.stop(Duration::from_millis(100))).await;
    assert_eq!(ended, Ended { open: 2, cut: 2 });
    assert!(tunnel.ends().await && waiting.ends().await);
}

#[tokio::test]
async fn dropping_a_front_ends_it_too() {
    let machine = raw_machine(|_, socket| async move {
        Wire::over(socket).rest().await;
    })
    .await;
    let front = front_to(Settings::default(), machine).await;
    let mut client = Wire::connect(front.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: web.example\r\n\r\n").await;
    drop(front);
    assert!(client.ends().await);
}
