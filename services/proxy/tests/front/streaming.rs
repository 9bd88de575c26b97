//! Bodies stream: nothing is kept back, nothing is kept.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use proxy::front::Settings;
use proxy_domain::Claim;
use tokio::sync::mpsc;

use crate::world::{Body, Machine, Wire, empty, fed, front_to, full, http1, lead, raw_machine, soon, up};

#[tokio::test]
async fn what_a_machine_sends_arrives_before_its_answer_ends() {
    let (feed, body) = fed();
    let body = std::sync::Mutex::new(Some(body));
    let web = Machine::start(move |_| {
        let body = body.lock().expect("never poisoned").take().expect("asked once");
        async move { Response::new(body) }
    })
    .await;
    let front = front_to(Settings::default(), web.address).await;
    let request = Request::get("/").header("host", "web.example").body(empty()).expect("valid");
    let answer =
        soon("the head", http1(front.address()).await.send_request(request)).await.expect("an answer");
    let mut answer = answer.into_body();
    for piece in ["one", "two", "three"] {
        feed.send(Ok(piece.into())).await.expect("the machine listens");
        let frame = soon(piece, answer.frame()).await.expect("not the end").expect("sound");
        assert_eq!(frame.into_data().expect("data"), piece);
    }
    drop(feed);
    assert!(soon("the end", answer.frame()).await.is_none());
}

#[tokio::test]
async fn what_a_client_sends_arrives_before_its_request_ends() {
    let (arrived, mut arrivals) = mpsc::channel(4);
    let web = Machine::start(move |mut request: Request<hyper::body::Incoming>| {
        let arrived = arrived.clone();
        async move {
            while let Some(frame) = request.body_mut().frame().await {
                let data = frame.expect("sound").into_data().expect("data");
                arrived.send(data).await.expect("the test listens");
            }
            Response::new(full("done"))
        }
    })
    .await;
    let front = front_to(Settings::default(), web.address).await;
    let (feed, body) = fed();
    let request = Request::post("/").header("host", "web.example").body(body).expect("valid");
    let mut client = http1(front.address()).await;
    let answer = tokio::spawn(async move { client.send_request(request).await });
    for piece in ["one", "two", "three"] {
        feed.send(Ok(piece.into())).await.expect("the client listens");
        assert_eq!(soon(piece, arrivals.recv()).await.expect("a piece"), piece);
    }
    drop(feed);
    assert_eq!(soon("the answer", answer).await.expect("no panic").expect("an answer").status(), 200);
}

const PIECE: usize = 64 * 1024;
const PIECES: usize = 4096;

/// 256 MiB, made as they are asked for.
fn large() -> Body {
    static ZEROS: [u8; PIECE] = [0; PIECE];
    let pieces = (0..PIECES).map(|_| Ok(http_body::Frame::data(Bytes::from_static(&ZEROS))));
    StreamBody::new(futures::stream::iter(pieces)).boxed()
}

/// The most memory this process ever held.
fn peak_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("Linux");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

async fn count(mut body: hyper::body::Incoming) -> usize {
    let mut count = 0;
    while let Some(frame) = body.frame().await {
        count += frame.expect("sound").data_ref().map_or(0, Bytes::len);
    }
    count
}

#[tokio::test]
async fn a_large_body_takes_no_memory_in_either_direction() {
    let web = Machine::start(|request: Request<_>| async move {
        let taken = count(request.into_body()).await;
        let mut answer = Response::new(large());
        answer.headers_mut().insert("x-taken", taken.into());
        answer
    })
    .await;
    let front = front_to(Settings::default(), web.address).await;
    let before = peak_kib();
    let request = Request::put("/").header("host", "web.example").body(large()).expect("valid");
    let answer =
        soon("the upload", http1(front.address()).await.send_request(request)).await.expect("an answer");
    assert_eq!(answer.headers()["x-taken"], (PIECE * PIECES).to_string());
    assert_eq!(soon("the download", count(answer.into_body())).await, PIECE * PIECES);
    let grown = peak_kib() - before;
    assert!(grown < 32 * 1024, "half a gigabyte went through and {grown} KiB more were held");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_passed_off_as_whole() {
    for head in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let machine = raw_machine(move |_, socket| async move {
            let mut wire = Wire::over(socket);
            wire.head().await;
            wire.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n5\r\nhello")).await;
        })
        .await;
        let front = front_to(Settings::default(), machine).await;
        let request = Request::get("/").header("host", "web.example").body(empty()).expect("valid");
        // It may break off so early that even the head is lost.
        let whole =
            async { http1(front.address()).await.send_request(request).await?.into_body().collect().await };
        assert!(soon("the end", whole).await.is_err(), "{head}");
    }
}

#[tokio::test]
async fn when_the_client_goes_the_machine_is_told() {
    let (gone, mut went) = mpsc::channel(1);
    let machine = raw_machine(move |_, socket| {
        let gone = gone.clone();
        async move {
            let mut wire = Wire::over(socket);
            wire.head().await;
            assert!(wire.ends().await);
            gone.send(()).await.expect("the test listens");
        }
    })
    .await;
    let front = front_to(Settings::default(), machine).await;
    let mut client = Wire::connect(front.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: web.example\r\n\r\n").await;
    testkit::eventually("the machine is asked", async || front.open().connections == 1).await;
    drop(client);
    soon("the machine's connection ends", went.recv()).await;
}

#[tokio::test]
async fn a_thousand_edits_of_other_routes_disturb_no_stream() {
    let (feed, body) = fed();
    let body = std::sync::Mutex::new(Some(body));
    let web = Machine::start(move |_| {
        let body = body.lock().expect("never poisoned").take().expect("asked once");
        async move { Response::new(body) }
    })
    .await;
    let front = front_to(Settings::default(), web.address).await;
    let request = Request::get("/").header("host", "web.example").body(empty()).expect("valid");
    let answer =
        soon("the head", http1(front.address()).await.send_request(request)).await.expect("an answer");
    let mut answer = answer.into_body();
    for edit in 0..1000u16 {
        let other: Claim = up("other", &format!("other-{edit}.example"), ([127, 0, 0, 1], 1 + edit).into());
        // Even its own route may go: the stream keeps the entry that it began with.
        let own = (edit % 2 == 0).then(|| up("web", "web.example", web.address));
        lead(&front, own.into_iter().chain([other]));
        if edit % 100 == 0 {
            feed.send(Ok("tick".into())).await.expect("the machine listens");
            let frame = soon("a tick", answer.frame()).await.expect("not the end").expect("sound");
            assert_eq!(frame.into_data().expect("data"), "tick");
        }
    }
    drop(feed);
    assert!(soon("the end", answer.frame()).await.is_none());
}
