//! Bodies are streamed: no part waits for the next, and none is kept.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use proxy::adapters::frontend::Settings;
use proxy::ports::Frontend;
use proxy_domain::DomainClaim;
use tokio::sync::mpsc;

use crate::support::{
    Body, RawConnection, TestUpstream, channel_body, empty, frontend_to, full, http1, in_time, raw_upstream,
    set_routes, up,
};

#[tokio::test]
async fn what_an_upstream_sends_arrives_before_its_response_ends() {
    let (feed, body) = channel_body();
    let body = std::sync::Mutex::new(Some(body));
    let web = TestUpstream::start(move |_| {
        let body = body.lock().expect("never poisoned").take().expect("asked once");
        async move { Response::new(body) }
    })
    .await;
    let frontend = frontend_to(Settings::default(), web.address).await;
    let request = Request::get("/").header("host", "web.example").body(empty()).expect("valid");
    let response =
        in_time("the head", http1(frontend.address()).await.send_request(request)).await.expect("a response");
    let mut response = response.into_body();
    for part in ["one", "two", "three"] {
        feed.send(Ok(part.into())).await.expect("the upstream reads");
        let frame = in_time(part, response.frame()).await.expect("not the end").expect("a valid frame");
        assert_eq!(frame.into_data().expect("data"), part);
    }
    drop(feed);
    assert!(in_time("the end", response.frame()).await.is_none());
}

#[tokio::test]
async fn what_a_client_sends_arrives_before_its_request_ends() {
    let (arrived, mut arrivals) = mpsc::channel(4);
    let web = TestUpstream::start(move |mut request: Request<hyper::body::Incoming>| {
        let arrived = arrived.clone();
        async move {
            while let Some(frame) = request.body_mut().frame().await {
                let data = frame.expect("a valid frame").into_data().expect("data");
                arrived.send(data).await.expect("the test receives");
            }
            Response::new(full("done"))
        }
    })
    .await;
    let frontend = frontend_to(Settings::default(), web.address).await;
    let (feed, body) = channel_body();
    let request = Request::post("/").header("host", "web.example").body(body).expect("valid");
    let mut client = http1(frontend.address()).await;
    let response = tokio::spawn(async move { client.send_request(request).await });
    for part in ["one", "two", "three"] {
        feed.send(Ok(part.into())).await.expect("the client listens");
        assert_eq!(in_time(part, arrivals.recv()).await.expect("a part"), part);
    }
    drop(feed);
    assert_eq!(in_time("the response", response).await.expect("no panic").expect("a response").status(), 200);
}

const PART: usize = 64 * 1024;
const PARTS: usize = 4096;

/// 256 MiB, created while they are read.
fn large() -> Body {
    static ZEROS: [u8; PART] = [0; PART];
    let parts = (0..PARTS).map(|_| Ok(http_body::Frame::data(Bytes::from_static(&ZEROS))));
    StreamBody::new(futures::stream::iter(parts)).boxed()
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
        count += frame.expect("a valid frame").data_ref().map_or(0, Bytes::len);
    }
    count
}

#[tokio::test]
async fn a_large_body_takes_no_memory_in_either_direction() {
    let web = TestUpstream::start(|request: Request<_>| async move {
        let taken = count(request.into_body()).await;
        let mut response = Response::new(large());
        response.headers_mut().insert("x-taken", taken.into());
        response
    })
    .await;
    let frontend = frontend_to(Settings::default(), web.address).await;
    let before = peak_kib();
    let request = Request::put("/").header("host", "web.example").body(large()).expect("valid");
    let response = in_time("the upload", http1(frontend.address()).await.send_request(request))
        .await
        .expect("a response");
    assert_eq!(response.headers()["x-taken"], (PART * PARTS).to_string());
    assert_eq!(in_time("the download", count(response.into_body())).await, PART * PARTS);
    let grown = peak_kib() - before;
    assert!(grown < 32 * 1024, "half a gigabyte passed and took {grown} KiB of memory");
}

#[tokio::test]
async fn an_incomplete_response_does_not_look_complete() {
    for head in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let upstream = raw_upstream(move |_, socket| async move {
            let mut connection = RawConnection::over(socket);
            connection.head().await;
            connection.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n5\r\nhello")).await;
        })
        .await;
        let frontend = frontend_to(Settings::default(), upstream).await;
        let request = Request::get("/").header("host", "web.example").body(empty()).expect("valid");
        // It may end so early that even the head is lost.
        let whole = async {
            http1(frontend.address()).await.send_request(request).await?.into_body().collect().await
        };
        assert!(in_time("the end", whole).await.is_err(), "{head}");
    }
}

#[tokio::test]
async fn when_the_client_closes_so_does_the_upstream_connection() {
    let (gone, mut went) = mpsc::channel(1);
    let upstream = raw_upstream(move |_, socket| {
        let gone = gone.clone();
        async move {
            let mut connection = RawConnection::over(socket);
            connection.head().await;
            assert!(connection.ends().await);
            gone.send(()).await.expect("the test receives");
        }
    })
    .await;
    let frontend = frontend_to(Settings::default(), upstream).await;
    let mut client = RawConnection::connect(frontend.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: web.example\r\n\r\n").await;
    testkit::eventually("the request is open", async || frontend.counts().clients == 1).await;
    drop(client);
    in_time("the upstream connection ends", went.recv()).await;
}

#[tokio::test]
async fn a_thousand_edits_of_other_routes_disturb_no_stream() {
    let (feed, body) = channel_body();
    let body = std::sync::Mutex::new(Some(body));
    let web = TestUpstream::start(move |_| {
        let body = body.lock().expect("never poisoned").take().expect("asked once");
        async move { Response::new(body) }
    })
    .await;
    let frontend = frontend_to(Settings::default(), web.address).await;
    let request = Request::get("/").header("host", "web.example").body(empty()).expect("valid");
    let response =
        in_time("the head", http1(frontend.address()).await.send_request(request)).await.expect("a response");
    let mut response = response.into_body();
    for edit in 0..1000u16 {
        let other: DomainClaim =
            up("other", &format!("other-{edit}.example"), ([127, 0, 0, 1], 1 + edit).into());
        // Even its own route may be removed: the stream keeps the route that it began with.
        let own = (edit % 2 == 0).then(|| up("web", "web.example", web.address));
        set_routes(&frontend, own.into_iter().chain([other]));
        if edit % 100 == 0 {
            feed.send(Ok("tick".into())).await.expect("the upstream reads");
            let frame =
                in_time("a tick", response.frame()).await.expect("not the end").expect("a valid frame");
            assert_eq!(frame.into_data().expect("data"), "tick");
        }
    }
    drop(feed);
    assert!(in_time("the end", response.frame()).await.is_none());
}
