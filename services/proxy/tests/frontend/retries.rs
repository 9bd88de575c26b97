//! Which requests are sent again, and which are not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proxy::adapters::frontend::Settings;
use proxy::ports::Frontend;

use crate::support::{RawConnection, frontend_to, in_time, raw_upstream};

/// An upstream that closes its first connection after reading the second request, and responds to all others with the
/// number of the connection. Counts the requests it received.
async fn closes_once() -> (SocketAddr, Arc<AtomicUsize>) {
    let received = Arc::new(AtomicUsize::new(0));
    let count = received.clone();
    let address = raw_upstream(move |number, socket| {
        let count = count.clone();
        async move {
            let mut connection = RawConnection::over(socket);
            for request in 0.. {
                let head = connection.head().await;
                let length = head.lines().find_map(|line| {
                    line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok()
                });
                connection.bytes(length.unwrap_or(0)).await;
                count.fetch_add(1, Ordering::SeqCst);
                if number == 0 && request == 1 {
                    return;
                }
                connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}")).await;
            }
        }
    })
    .await;
    (address, received)
}

async fn second_request(method: &str, body: &str) -> (u16, usize) {
    let (upstream, received) = closes_once().await;
    let frontend = frontend_to(Settings::default(), upstream).await;
    let mut client = RawConnection::connect(frontend.address()).await;
    assert_eq!(client.get("web.example", "/").await.body, "0");
    let length = body.len();
    client
        .send(format!("{method} / HTTP/1.1\r\nHost: web.example\r\nContent-Length: {length}\r\n\r\n{body}"))
        .await;
    (client.response().await.status, received.load(Ordering::SeqCst))
}

#[tokio::test]
async fn an_idempotent_request_is_sent_again_when_a_reused_connection_breaks() {
    assert_eq!(second_request("GET", "").await, (200, 3));
    assert_eq!(second_request("PUT", "a body that is small enough to keep").await, (200, 3));
}

#[tokio::test]
async fn a_request_that_may_have_had_an_effect_is_not_sent_again() {
    assert_eq!(second_request("POST", "pay").await, (502, 2));
    assert_eq!(second_request("POST", "").await, (502, 2));
}

#[tokio::test]
async fn a_body_too_large_to_keep_is_not_sent_again() {
    let large = "x".repeat(65 * 1024);
    assert_eq!(second_request("PUT", &large).await, (502, 2));
}

#[tokio::test]
async fn an_upstream_that_breaks_new_connections_gets_one_request() {
    let received = Arc::new(AtomicUsize::new(0));
    let count = received.clone();
    let upstream = raw_upstream(move |_, socket| {
        let count = count.clone();
        async move {
            RawConnection::over(socket).head().await;
            count.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let frontend = frontend_to(Settings::default(), upstream).await;
    assert_eq!(RawConnection::connect(frontend.address()).await.get("web.example", "/").await.status, 502);
    assert_eq!(received.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_connection_that_the_upstream_closed_is_not_reused() {
    let (closed, mut closings) = tokio::sync::mpsc::channel(1);
    let upstream = raw_upstream(move |number, socket| {
        let closed = closed.clone();
        async move {
            let mut connection = RawConnection::over(socket);
            connection.head().await;
            connection
                .send(format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{number}",
                    number.to_string().len()
                ))
                .await;
            drop(connection);
            closed.send(()).await.expect("the test receives");
        }
    })
    .await;
    let frontend = frontend_to(Settings::default(), upstream).await;
    let mut client = RawConnection::connect(frontend.address()).await;
    for number in 0..20 {
        // A POST is never repeated, so it shows whether a closed connection was used.
        client.send("POST / HTTP/1.1\r\nHost: web.example\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(client.response().await.body, number.to_string());
        in_time("the upstream closes the connection", closings.recv()).await;
    }
}
