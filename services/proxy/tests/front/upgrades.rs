//! Tunnels: what passes, when, and what ends them.

use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, Response};
use proxy::front::{Front, Settings};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::world::{Machine, Wire, front, front_to, full, lead, raw_machine, soon, up};

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: web.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const GRANT: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Grants every upgrade and sends back what it is sent, until the client ends.
async fn echo() -> SocketAddr {
    raw_machine(|_, socket| async move {
        let mut wire = Wire::over(socket);
        let head = wire.head().await.to_ascii_lowercase();
        assert!(head.contains("upgrade: websocket") && head.contains("connection: upgrade"), "{head}");
        wire.send(GRANT).await;
        let (mut reading, mut writing) = wire.socket.split();
        // An end by reset is as good as any other here.
        drop(tokio::io::copy(&mut reading, &mut writing).await);
        drop(writing.shutdown().await);
    })
    .await
}

async fn open(front: &Front) -> Wire {
    let mut client = Wire::connect(front.address()).await;
    client.send(ASK).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(head.to_ascii_lowercase().contains("sec-websocket-accept"), "{head}");
    client
}

async fn echoes(client: &mut Wire, text: &str) {
    client.send(text).await;
    assert_eq!(client.bytes(text.len()).await, text.as_bytes());
}

#[tokio::test]
async fn after_the_machine_grants_it_both_ends_are_joined_until_both_have_ended() {
    let front = front_to(Settings::default(), echo().await).await;
    let mut client = open(&front).await;
    echoes(&mut client, "hello").await;
    echoes(&mut client, &"x".repeat(300_000)).await;
    assert_eq!(front.open().tunnels, 1);
    client.send("last words").await;
    client.socket.shutdown().await.expect("open");
    assert_eq!(client.rest().await, "last words", "the other direction stays open");
    testkit::eventually("the tunnel is gone", async || front.open().tunnels == 0).await;
    testkit::eventually("its place is free", async || front.open().connections == 0).await;
}

#[tokio::test]
async fn nothing_behind_the_request_passes_before_the_machine_has_granted_it() {
    let (seen, mut saw) = mpsc::channel(1);
    let machine = raw_machine(move |_, socket| {
        let seen = seen.clone();
        async move {
            let mut wire = Wire::over(socket);
            wire.head().await;
            seen.send(()).await.expect("the test listens");
            // What came behind the head would be read together with it, or now.
            let mut early = [0; 1];
            assert!(wire.socket.try_read(&mut early).is_err(), "bytes came before the grant");
            wire.send(GRANT).await;
            wire.send("server first").await;
            let early = wire.bytes(5).await;
            wire.send(early).await;
            wire.rest().await;
        }
    })
    .await;
    let front = front_to(Settings::default(), machine).await;
    let mut client = Wire::connect(front.address()).await;
    client.send(format!("{ASK}early")).await;
    soon("the machine is asked", saw.recv()).await;
    client.head().await;
    assert_eq!(client.bytes(17).await, b"server firstearly");
}

#[tokio::test]
async fn when_the_machine_declines_http_goes_on() {
    let web =
        Machine::start(
            |request: Request<_>| async move { Response::new(full(request.uri().path().to_owned())) },
        )
        .await;
    let front = front_to(Settings::default(), web.address).await;
    let mut client = Wire::connect(front.address()).await;
    client.send(format!("{ASK}GET /next HTTP/1.1\r\nHost: web.example\r\n\r\n")).await;
    assert_eq!(client.answer().await.body, "/chat");
    assert_eq!(client.answer().await.body, "/next");
    assert_eq!(client.get("web.example", "/third").await.body, "/third");
    assert_eq!(front.open().tunnels, 0);
}

#[tokio::test]
async fn an_upgrade_of_a_site_that_is_not_there_is_an_ordinary_error() {
    let nobody =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
    let front = front_to(Settings::default(), nobody).await;
    let mut client = Wire::connect(front.address()).await;
    client.send(ASK).await;
    assert_eq!(client.answer().await.status, 502);
    client.send(ASK.replace("web.example", "other.example")).await;
    assert_eq!(client.answer().await.status, 404, "and the connection goes on");
    assert_eq!(client.get("other.example", "/").await.status, 404);
}

#[tokio::test]
async fn an_upgrade_with_a_body_is_asked_without_the_upgrade() {
    let web = Machine::start(|_| async { Response::new(full("plain")) }).await;
    let front = front_to(Settings::default(), web.address).await;
    let mut client = Wire::connect(front.address()).await;
    client
        .send("POST / HTTP/1.1\r\nHost: web.example\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi")
        .await;
    assert_eq!(client.answer().await.body, "plain");
    assert!(!web.last().headers.contains_key("upgrade"));
}

#[tokio::test]
async fn a_grant_of_something_else_is_502() {
    let machine = raw_machine(|_, socket| async move {
        let mut wire = Wire::over(socket);
        wire.head().await;
        wire.send(GRANT.replace("websocket", "h2c")).await;
        wire.rest().await;
    })
    .await;
    let front = front_to(Settings::default(), machine).await;
    let mut client = Wire::connect(front.address()).await;
    client.send(ASK).await;
    assert_eq!(client.answer().await.status, 502);
}

#[tokio::test]
async fn a_tunnel_on_which_nothing_moves_ends() {
    let mut settings = Settings::default();
    settings.timeouts.tunnel_idle = Duration::from_secs(3);
    let front = front_to(settings, echo().await).await;
    let mut client = open(&front).await;
    let mut beat = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..80 {
        beat.tick().await;
        echoes(&mut client, "still here").await;
    }
    assert!(client.ends().await, "after that it is silent");
}

#[tokio::test]
async fn no_edit_of_other_routes_ends_a_tunnel() {
    let machine = echo().await;
    let front = front_to(Settings::default(), machine).await;
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(open(&front).await);
    }
    for edit in 0..1000u16 {
        // The tunnels' own route may even lead elsewhere: it still belongs to the same machine.
        let own = up("web", "web.example", ([127, 0, 0, 1], 1 + edit).into());
        lead(&front, [own, up("other", &format!("other-{edit}.example"), machine)]);
    }
    for client in &mut clients {
        echoes(client, "still here").await;
    }
    assert_eq!(front.open().tunnels, 100);
}

#[tokio::test]
async fn a_tunnel_whose_route_is_taken_away_ends_after_the_drain_time() {
    let mut settings = Settings::default();
    settings.timeouts.drain = Duration::from_millis(100);
    let machine = echo().await;
    let front = front(settings).await;
    lead(&front, [up("web", "web.example", machine), up("api", "api.example", machine)]);
    let mut taken = open(&front).await;
    let mut kept = Wire::connect(front.address()).await;
    kept.send(ASK.replace("web.example", "api.example")).await;
    kept.head().await;
    lead(&front, [up("api", "api.example", machine)]);
    assert!(taken.ends().await);
    echoes(&mut kept, "still here").await;
}

#[tokio::test]
async fn a_route_that_comes_back_in_time_saves_its_tunnels() {
    let mut settings = Settings::default();
    settings.timeouts.drain = Duration::from_millis(200);
    let machine = echo().await;
    let front = front_to(settings, machine).await;
    let mut client = open(&front).await;
    lead(&front, []);
    lead(&front, [up("web", "web.example", machine)]);
    // Another tunnel that is not saved shows that the time is over.
    lead(&front, [up("web", "web.example", machine), up("api", "api.example", machine)]);
    let mut lost = Wire::connect(front.address()).await;
    lost.send(ASK.replace("web.example", "api.example")).await;
    lost.head().await;
    lead(&front, [up("web", "web.example", machine)]);
    assert!(lost.ends().await);
    echoes(&mut client, "still here").await;
}
