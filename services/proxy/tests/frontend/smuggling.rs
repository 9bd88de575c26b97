//! Malformed requests. Whatever is sent, a strict parser behind the frontend sees valid requests only, no more of them
//! than the client has responses, and no byte of what must be refused.

mod parser;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proxy::adapters::frontend::{HttpFrontend, Settings};
use proxy::ports::Frontend;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::AsyncReadExt;

use crate::support::{RawConnection, frontend_to, raw_upstream};
use parser::{Parsed, parse};

/// An upstream that parses strictly, records every byte, and responds to each valid request.
async fn strict_upstream() -> (SocketAddr, Arc<Mutex<Vec<Vec<u8>>>>) {
    let streams = Arc::new(Mutex::new(Vec::new()));
    let recorded = streams.clone();
    let address = raw_upstream(move |_, socket| {
        let recorded = recorded.clone();
        async move {
            let number = {
                let mut recorded = recorded.lock().expect("never poisoned");
                recorded.push(Vec::new());
                recorded.len() - 1
            };
            let mut connection = RawConnection::over(socket);
            let (mut buffer, mut responded) = ([0; 4096], 0);
            while let Ok(count @ 1..) = connection.socket.read(&mut buffer).await {
                let parsed = {
                    let mut recorded = recorded.lock().expect("never poisoned");
                    recorded[number].extend_from_slice(&buffer[..count]);
                    parse(&recorded[number])
                };
                while responded < parsed.requests() {
                    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                    responded += 1;
                }
            }
        }
    })
    .await;
    (address, streams)
}

struct Exchange {
    statuses: Vec<u16>,
    streams_parsed: Vec<Parsed>,
}

impl Exchange {
    fn forwarded(&self) -> usize {
        self.streams_parsed.iter().map(Parsed::requests).sum()
    }
}

/// Sends the bytes and then a request with `Connection: close`, and reads all responses.
async fn send(bytes: &[u8]) -> Exchange {
    let (address, streams) = strict_upstream().await;
    let frontend: HttpFrontend = frontend_to(Settings::default(), address).await;
    let mut client = RawConnection::connect(frontend.address()).await;
    client.send(bytes).await;
    client.send("GET /last HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n\r\n").await;
    let text = client.rest().await;
    let statuses = text
        .split("HTTP/1.1 ")
        .skip(1)
        .map(|response| response[..3].parse().unwrap_or_else(|_| panic!("no status in {response:?}")))
        .collect();
    let streams_parsed = streams.lock().expect("never poisoned").iter().map(|stream| parse(stream)).collect();
    Exchange { statuses, streams_parsed }
}

/// Refused as a whole: one response, the connection closed, no byte forwarded.
const REFUSED: [(&str, &str, u16); 34] = [
    (
        "CL.TE",
        "POST / HTTP/1.1\r\nHost: web.example\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
        400,
    ),
    (
        "TE.CL",
        "POST / HTTP/1.1\r\nHost: web.example\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\nGPOST",
        400,
    ),
    (
        "two lengths",
        "POST / HTTP/1.1\r\nHost: web.example\r\nContent-Length: 3\r\nContent-Length: 30\r\n\r\nabc",
        400,
    ),
    ("a list of lengths", "POST / HTTP/1.1\r\nHost: web.example\r\nContent-Length: 3, 3\r\n\r\nabc", 400),
    ("a signed length", "POST / HTTP/1.1\r\nHost: web.example\r\nContent-Length: +3\r\n\r\nabc", 400),
    ("a negative length", "POST / HTTP/1.1\r\nHost: web.example\r\nContent-Length: -1\r\n\r\n", 400),
    ("a hexadecimal length", "POST / HTTP/1.1\r\nHost: web.example\r\nContent-Length: 0x3\r\n\r\nabc", 400),
    (
        "a huge length",
        "POST / HTTP/1.1\r\nHost: web.example\r\nContent-Length: 18446744073709551616\r\n\r\n",
        400,
    ),
    (
        "a list of encodings",
        "POST / HTTP/1.1\r\nHost: web.example\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "an unknown encoding",
        "POST / HTTP/1.1\r\nHost: web.example\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "gzip and chunked",
        "POST / HTTP/1.1\r\nHost: web.example\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "two encodings",
        "POST / HTTP/1.1\r\nHost: web.example\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "an encoding behind a tab stop",
        "POST / HTTP/1.1\r\nHost: web.example\r\nTransfer-Encoding:\u{b}chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "chunked in HTTP/1.0",
        "POST / HTTP/1.0\r\nHost: web.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "space before the colon",
        "POST / HTTP/1.1\r\nHost: web.example\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "a folded field",
        "POST / HTTP/1.1\r\nHost: web.example\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    ("a folded first field", "GET / HTTP/1.1\r\n X: 1\r\nHost: web.example\r\n\r\n", 400),
    ("bare LF", "GET / HTTP/1.1\nHost: web.example\n\n", 400),
    ("one bare LF", "GET / HTTP/1.1\r\nHost: web.example\r\nX: 1\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("bare CR", "GET / HTTP/1.1\r\nHost: web.example\r\nX: 1\rTransfer-Encoding: chunked\r\n\r\n", 400),
    ("NUL in a value", "GET / HTTP/1.1\r\nHost: web.example\r\nX: a\0b\r\n\r\n", 400),
    ("NUL in a name", "GET / HTTP/1.1\r\nHost: web.example\r\nX\0: a\r\n\r\n", 400),
    ("no host", "GET / HTTP/1.1\r\n\r\n", 400),
    ("two hosts", "GET / HTTP/1.1\r\nHost: web.example\r\nHost: other.example\r\n\r\n", 400),
    ("the same host twice", "GET / HTTP/1.1\r\nHost: web.example\r\nHost: web.example\r\n\r\n", 400),
    ("a host with a path", "GET / HTTP/1.1\r\nHost: web.example/x\r\n\r\n", 400),
    ("a host with a user", "GET / HTTP/1.1\r\nHost: user@web.example\r\n\r\n", 400),
    ("another host in the target", "GET http://other.example/ HTTP/1.1\r\nHost: web.example\r\n\r\n", 400),
    ("two spaces", "GET  / HTTP/1.1\r\nHost: web.example\r\n\r\n", 400),
    ("a control character in the target", "GET /\u{7f} HTTP/1.1\r\nHost: web.example\r\n\r\n", 400),
    ("HTTP/0.9", "GET /\r\n", 400),
    ("an unknown version", "GET / HTTP/3.7\r\nHost: web.example\r\n\r\n", 505),
    (
        "an unknown expectation",
        "POST / HTTP/1.1\r\nHost: web.example\r\nExpect: 100-continue\u{b}\r\nContent-Length: 1\r\n\r\nx",
        400,
    ),
    ("CONNECT", "CONNECT web.example:80 HTTP/1.1\r\nHost: web.example\r\n\r\n", 501),
];

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_refused_whole() {
    for (name, bytes, status) in REFUSED {
        let outcome = send(bytes.as_bytes()).await;
        assert_eq!(outcome.statuses, [status], "{name}");
        assert_eq!(outcome.streams_parsed, [], "nothing is forwarded, not even a connection: {name}");
    }
}

/// Invalid within the body: the head was valid, so it may have been forwarded, but never as a whole request.
const BROKEN_BODY: [(&str, &str); 9] = [
    ("a chunk longer than its size", "3\r\nabcd\r\n0\r\n\r\n"),
    ("a chunk size with 0x", "0x3\r\nabc\r\n0\r\n\r\n"),
    ("a signed chunk size", "+3\r\nabc\r\n0\r\n\r\n"),
    ("space behind a chunk size", "3 \r\nabc\r\n0\r\n\r\n"),
    ("a chunk size of 17 digits", "00000000000000003\r\nabc\r\n0\r\n\r\n"),
    ("bare LF behind a chunk size", "3\nabc\r\n0\r\n\r\n"),
    ("bare CR in an extension", "3;a\rb\r\nabc\r\n0\r\n\r\n"),
    ("a length in the trailers", "0\r\nContent-Length: 40\r\n\r\n"),
    ("an encoding in the trailers", "0\r\nTransfer-Encoding: chunked\r\n\r\n"),
];

#[tokio::test]
async fn a_body_whose_end_is_ambiguous_never_ends_for_the_upstream() {
    for (name, body) in BROKEN_BODY {
        let head = "POST / HTTP/1.1\r\nHost: web.example\r\nTransfer-Encoding: chunked\r\n\r\n";
        let outcome = send(format!("{head}{body}").as_bytes()).await;
        assert_eq!(outcome.statuses, [400], "{name}");
        for parsed in outcome.streams_parsed {
            assert!(!matches!(parsed, Parsed::Invalid(_)) && parsed.requests() == 0, "{name}: {parsed:?}");
        }
    }
}

/// Unusual, and allowed: forwarded clean, one for one.
const CLEANED: [(&str, &str); 7] = [
    (
        "the same length twice",
        "POST / HTTP/1.1\r\nHost: web.example\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    ),
    (
        "a length in Connection",
        "POST / HTTP/1.1\r\nHost: web.example\r\nConnection: content-length\r\nContent-Length: 3\r\n\r\nabc",
    ),
    ("the host in Connection", "GET / HTTP/1.1\r\nHost: web.example\r\nConnection: host\r\n\r\n"),
    ("an underscored length", "GET / HTTP/1.1\r\nHost: web.example\r\nContent_Length: 30\r\n\r\n"),
    (
        "an upgrade with a body",
        "POST / HTTP/1.1\r\nHost: web.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc",
    ),
    (
        "a chunked GET",
        "GET / HTTP/1.1\r\nHost: web.example\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
    ),
    ("an empty line first", "\r\nGET / HTTP/1.1\r\nHost: web.example\r\n\r\n"),
];

#[tokio::test]
async fn what_is_only_unusual_is_forwarded_clean_and_one_for_one() {
    for (name, bytes) in CLEANED {
        let outcome = send(bytes.as_bytes()).await;
        assert_eq!(outcome.statuses, [200, 200], "{name}");
        assert_eq!(outcome.forwarded(), 2, "{name}");
        for parsed in &outcome.streams_parsed {
            assert!(matches!(parsed, Parsed::Complete { .. }), "{name}: {parsed:?}");
        }
    }
}

#[tokio::test]
async fn requests_before_a_refused_one_get_their_responses_first() {
    let good = "GET /good HTTP/1.1\r\nHost: web.example\r\n\r\n";
    let outcome = send(format!("{good}{good}{}", REFUSED[0].1).as_bytes()).await;
    assert_eq!(outcome.statuses, [200, 200, 400]);
    assert_eq!(outcome.forwarded(), 2);
}

/// Insertions that change the framing of a request.
const DAMAGE: [&str; 22] = [
    "\r",
    "\n",
    "\r\n",
    "\r\n\r\n",
    "\0",
    " ",
    "\t",
    ":",
    ",",
    ";",
    "0",
    "1",
    "a",
    "x",
    "\u{b}",
    "Content-Length: 1\r\n",
    "Transfer-Encoding: chunked\r\n",
    "0\r\n\r\n",
    "Host: b\r\n",
    "GET / HTTP/1.1\r\n",
    "Connection: upgrade\r\n",
    "Upgrade: x\r\n",
];

/// A stream of valid requests with one to three random changes.
fn damaged(random: &mut StdRng) -> Vec<u8> {
    let valid = "POST /1 HTTP/1.1\r\nHost: web.example\r\nContent-Length: 3\r\n\r\nabc\
                 POST /2 HTTP/1.1\r\nHost: web.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
                 GET /3 HTTP/1.1\r\nHost: web.example\r\nX: y\r\n\r\n";
    let mut bytes = valid.as_bytes().to_vec();
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..bytes.len());
        let cut = random.random_range(0..3.min(bytes.len() - at + 1));
        bytes.splice(at..at + cut, DAMAGE[random.random_range(0..DAMAGE.len())].bytes());
    }
    bytes
}

#[tokio::test]
async fn however_requests_are_damaged_the_upstream_sees_valid_ones_only_and_each_has_a_response() {
    const CLIENTS: usize = 200;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    // Incomplete requests time out soon.
    let mut settings = Settings::default();
    settings.timeouts.head_read = Duration::from_millis(200);
    settings.timeouts.keep_alive_idle = Duration::from_millis(200);
    settings.slow_transfer.idle_max = Duration::from_millis(200);
    let (address, streams) = strict_upstream().await;
    let frontend: HttpFrontend = frontend_to(settings, address).await;
    let clients = (0..CLIENTS).map(|_| {
        let (bytes, address) = (damaged(&mut random), frontend.address());
        async move {
            let mut client = RawConnection::connect(address).await;
            client.send(&bytes).await;
            client.rest().await.matches("HTTP/1.1 ").count()
        }
    });
    let responded: usize = futures::future::join_all(clients).await.into_iter().sum();
    let streams = streams.lock().expect("never poisoned");
    let streams_parsed: Vec<Parsed> = streams.iter().map(|stream| parse(stream)).collect();
    let invalid: Vec<_> =
        streams_parsed.iter().filter(|parsed| matches!(parsed, Parsed::Invalid(_))).collect();
    assert!(invalid.is_empty(), "{invalid:?}");
    let forwarded: usize = streams_parsed.iter().map(Parsed::requests).sum();
    assert!((CLIENTS / 2..=responded).contains(&forwarded), "{forwarded} forwarded, {responded} responded");
}

#[tokio::test]
async fn a_client_cannot_request_the_refusal() {
    let outcome = send(b"LOAM-REFUSED / HTTP/1.1\r\nHost: web.example\r\n\r\n").await;
    assert_eq!(outcome.statuses, [200, 200], "it is a method like any other");
}
