//! Tunnels: what passes, when, and what ends them.

use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, Response};
use proxy::adapters::frontend::{HttpFrontend, Settings};
use proxy::ports::Frontend;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::support::{
    RawConnection, TestUpstream, frontend, frontend_to, full, in_time, raw_upstream, set_routes, up,
};

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: web.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const GRANTED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Grants every upgrade and echoes what it receives, until the client closes.
async fn echo() -> SocketAddr {
    raw_upstream(|_, socket| async move {
        let mut connection = RawConnection::over(socket);
        let head = connection.head().await.to_ascii_lowercase();
        assert!(head.contains("upgrade: websocket") && head.contains("connection: upgrade"), "{head}");
        connection.send(GRANTED).await;
        let (mut reading, mut writing) = connection.socket.split();
        // The client may close or reset.
        drop(tokio::io::copy(&mut reading, &mut writing).await);
        drop(writing.shutdown().await);
    })
    .await
}

async fn open(frontend: &HttpFrontend) -> RawConnection {
    let mut client = RawConnection::connect(frontend.address()).await;
    client.send(UPGRADE).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(head.to_ascii_lowercase().contains("sec-websocket-accept"), "{head}");
    client
}

async fn echoes(client: &mut RawConnection, text: &str) {
    client.send(text).await;
    assert_eq!(client.bytes(text.len()).await, text.as_bytes());
}

#[tokio::test]
async fn after_the_upstream_grants_it_both_ends_are_joined_until_both_have_closed() {
    let frontend = frontend_to(Settings::default(), echo().await).await;
    let mut client = open(&frontend).await;
    echoes(&mut client, "hello").await;
    echoes(&mut client, &"x".repeat(300_000)).await;
    assert_eq!(frontend.counts().tunnels, 1);
    client.send("last words").await;
    client.socket.shutdown().await.expect("open");
    assert_eq!(client.rest().await, "last words", "the other direction stays open");
    testkit::eventually("the tunnel is closed", async || frontend.counts().tunnels == 0).await;
    testkit::eventually("the client connection is closed", async || frontend.counts().clients == 0).await;
}

#[tokio::test]
async fn no_byte_after_the_request_passes_before_the_upstream_has_granted_it() {
    let (seen, mut saw) = mpsc::channel(1);
    let upstream = raw_upstream(move |_, socket| {
        let seen = seen.clone();
        async move {
            let mut connection = RawConnection::over(socket);
            connection.head().await;
            seen.send(()).await.expect("the test receives");
            // Bytes after the head would arrive with it, or now.
            let mut early = [0; 1];
            assert!(connection.socket.try_read(&mut early).is_err(), "bytes came before the grant");
            connection.send(GRANTED).await;
            connection.send("server first").await;
            let early = connection.bytes(5).await;
            connection.send(early).await;
            connection.rest().await;
        }
    })
    .await;
    let frontend = frontend_to(Settings::default(), upstream).await;
    let mut client = RawConnection::connect(frontend.address()).await;
    client.send(format!("{UPGRADE}early")).await;
    in_time("the upstream has the request", saw.recv()).await;
    client.head().await;
    assert_eq!(client.bytes(17).await, b"server firstearly");
}

#[tokio::test]
async fn when_the_upstream_declines_http_goes_on() {
    let web = TestUpstream::start(|request: Request<_>| async move {
        Response::new(full(request.uri().path().to_owned()))
    })
    .await;
    let frontend = frontend_to(Settings::default(), web.address).await;
    let mut client = RawConnection::connect(frontend.address()).await;
    client.send(format!("{UPGRADE}GET /next HTTP/1.1\r\nHost: web.example\r\n\r\n")).await;
    assert_eq!(client.response().await.body, "/chat");
    assert_eq!(client.response().await.body, "/next");
    assert_eq!(client.get("web.example", "/third").await.body, "/third");
    assert_eq!(frontend.counts().tunnels, 0);
}

#[tokio::test]
async fn an_upgrade_without_an_upstream_is_an_ordinary_error() {
    let nobody =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
    let frontend = frontend_to(Settings::default(), nobody).await;
    let mut client = RawConnection::connect(frontend.address()).await;
    client.send(UPGRADE).await;
    assert_eq!(client.response().await.status, 502);
    client.send(UPGRADE.replace("web.example", "other.example")).await;
    assert_eq!(client.response().await.status, 404, "and the connection goes on");
    assert_eq!(client.get("other.example", "/").await.status, 404);
}

#[tokio::test]
async fn an_upgrade_with_a_body_is_forwarded_without_the_upgrade() {
    let web = TestUpstream::start(|_| async { Response::new(full("plain")) }).await;
    let frontend = frontend_to(Settings::default(), web.address).await;
    let mut client = RawConnection::connect(frontend.address()).await;
    client
        .send("POST / HTTP/1.1\r\nHost: web.example\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi")
        .await;
    assert_eq!(client.response().await.body, "plain");
    assert!(!web.last().headers.contains_key("upgrade"));
}

#[tokio::test]
async fn a_grant_of_another_protocol_is_502() {
    let upstream = raw_upstream(|_, socket| async move {
        let mut connection = RawConnection::over(socket);
        connection.head().await;
        connection.send(GRANTED.replace("websocket", "h2c")).await;
        connection.rest().await;
    })
    .await;
    let frontend = frontend_to(Settings::default(), upstream).await;
    let mut client = RawConnection::connect(frontend.address()).await;
    client.send(UPGRADE).await;
    assert_eq!(client.response().await.status, 502);
}

#[tokio::test]
async fn an_idle_tunnel_ends() {
    let mut settings = Settings::default();
    settings.timeouts.tunnel_idle = Duration::from_secs(3);
    let frontend = frontend_to(settings, echo().await).await;
    let mut client = open(&frontend).await;
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..80 {
        tick.tick().await;
        echoes(&mut client, "still here").await;
    }
    assert!(client.ends().await, "after that it is idle");
}

#[tokio::test]
async fn no_edit_of_other_routes_ends_a_tunnel() {
    let upstream = echo().await;
    let frontend = frontend_to(Settings::default(), upstream).await;
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(open(&frontend).await);
    }
    for edit in 0..1000u16 {
        // The tunnels' own route may even change its address: it still belongs to the same VM.
        let own = up("web", "web.example", ([127, 0, 0, 1], 1 + edit).into());
        set_routes(&frontend, [own, up("other", &format!("other-{edit}.example"), upstream)]);
    }
    for client in &mut clients {
        echoes(client, "still here").await;
    }
    assert_eq!(frontend.counts().tunnels, 100);
}

#[tokio::test]
async fn a_tunnel_whose_route_is_removed_ends_after_the_drain_time() {
    let mut settings = Settings::default();
    settings.timeouts.tunnel_without_route = Duration::from_millis(100);
    let upstream = echo().await;
    let frontend = frontend(settings).await;
    set_routes(&frontend, [up("web", "web.example", upstream), up("api", "api.example", upstream)]);
    let mut taken = open(&frontend).await;
    let mut kept = RawConnection::connect(frontend.address()).await;
    kept.send(UPGRADE.replace("web.example", "api.example")).await;
    kept.head().await;
    set_routes(&frontend, [up("api", "api.example", upstream)]);
    assert!(taken.ends().await);
    echoes(&mut kept, "still here").await;
}

#[tokio::test]
async fn a_route_that_is_back_in_time_keeps_its_tunnels() {
    let mut settings = Settings::default();
    settings.timeouts.tunnel_without_route = Duration::from_millis(200);
    let upstream = echo().await;
    let frontend = frontend_to(settings, upstream).await;
    let mut client = open(&frontend).await;
    set_routes(&frontend, []);
    set_routes(&frontend, [up("web", "web.example", upstream)]);
    // Another tunnel, whose route is not back, shows that the time has passed.
    set_routes(&frontend, [up("web", "web.example", upstream), up("api", "api.example", upstream)]);
    let mut lost = RawConnection::connect(frontend.address()).await;
    lost.send(UPGRADE.replace("web.example", "api.example")).await;
    lost.head().await;
    set_routes(&frontend, [up("web", "web.example", upstream)]);
    assert!(lost.ends().await);
    echoes(&mut client, "still here").await;
}
