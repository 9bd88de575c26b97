//! What is asked again, and what is not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proxy::front::Settings;

use crate::world::{Wire, front_to, raw_machine, soon};

/// A machine that hangs up on the second request of its first connection, after reading it, and answers all others
/// with the number of the connection. Counts the requests that it was sent.
async fn fickle() -> (SocketAddr, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let address = raw_machine(move |number, socket| {
        let count = count.clone();
        async move {
            let mut wire = Wire::over(socket);
            for request in 0.. {
                let head = wire.head().await;
                let length = head.lines().find_map(|line| {
                    line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok()
                });
                wire.bytes(length.unwrap_or(0)).await;
                count.fetch_add(1, Ordering::SeqCst);
                if number == 0 && request == 1 {
                    return;
                }
                wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}")).await;
            }
        }
    })
    .await;
    (address, asked)
}

async fn second_request(method: &str, body: &str) -> (u16, usize) {
    let (machine, asked) = fickle().await;
    let front = front_to(Settings::default(), machine).await;
    let mut client = Wire::connect(front.address()).await;
    assert_eq!(client.get("web.example", "/").await.body, "0");
    let length = body.len();
    client
        .send(format!("{method} / HTTP/1.1\r\nHost: web.example\r\nContent-Length: {length}\r\n\r\n{body}"))
        .await;
    (client.answer().await.status, asked.load(Ordering::SeqCst))
}

#[tokio::test]
async fn what_may_be_repeated_is_asked_again_when_a_kept_connection_breaks() {
    assert_eq!(second_request("GET", "").await, (200, 3));
    assert_eq!(second_request("PUT", "a body that is small enough to keep").await, (200, 3));
}

#[tokio::test]
async fn what_may_have_had_an_effect_is_not_asked_again() {
    assert_eq!(second_request("POST", "pay").await, (502, 2));
    assert_eq!(second_request("POST", "").await, (502, 2));
}

#[tokio::test]
async fn a_body_too_large_to_keep_is_not_sent_again() {
    let large = "x".repeat(65 * 1024);
    assert_eq!(second_request("PUT", &large).await, (502, 2));
}

#[tokio::test]
async fn a_machine_that_breaks_fresh_connections_is_asked_once() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let machine = raw_machine(move |_, socket| {
        let count = count.clone();
        async move {
            Wire::over(socket).head().await;
            count.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let front = front_to(Settings::default(), machine).await;
    assert_eq!(Wire::connect(front.address()).await.get("web.example", "/").await.status, 502);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_connection_that_the_machine_closed_meanwhile_is_not_used() {
    let (hung_up, mut hang_ups) = tokio::sync::mpsc::channel(1);
    let machine = raw_machine(move |number, socket| {
        let hung_up = hung_up.clone();
        async move {
            let mut wire = Wire::over(socket);
            wire.head().await;
            wire.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{number}",
                number.to_string().len()
            ))
            .await;
            drop(wire);
            hung_up.send(()).await.expect("the test listens");
        }
    })
    .await;
    let front = front_to(Settings::default(), machine).await;
    let mut client = Wire::connect(front.address()).await;
    for number in 0..20 {
        // A POST is never repeated, so it tells whether a dead connection was tried.
        client.send("POST / HTTP/1.1\r\nHost: web.example\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(client.answer().await.body, number.to_string());
        soon("the machine hangs up", hang_ups.recv()).await;
    }
}
