//! Who gets which request, and what the client gets when nobody does.

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use proxy::front::Settings;
use proxy_domain::DownReason;
use proxy_domain::forwarded::TrustedPeers;

use crate::world::{
    Machine, Wire, down, empty, front, front_to, full, get, http1, http2, lead, raw_machine, read, soon, up,
};

async fn says(text: &'static str) -> Machine {
    Machine::start(move |_| async move { Response::new(full(text)) }).await
}

#[tokio::test]
async fn a_request_goes_to_the_machine_whose_domain_it_names() {
    let (web, api) = (says("web").await, says("api").await);
    let front = front(Settings::default()).await;
    lead(&front, [up("web", "web.example", web.address), up("api", "api.example", api.address)]);
    for (host, body) in
        [("web.example", "web"), ("API.example", "api"), ("web.example.", "web"), ("api.example:8080", "api")]
    {
        let (answer, text) = get(front.address(), host, "/").await;
        assert_eq!((answer.status().as_u16(), text.as_str()), (200, body), "{host}");
    }
}

#[tokio::test]
async fn an_unknown_host_gets_404_and_learns_no_names() {
    let web = says("web").await;
    let front = front_to(Settings::default(), web.address).await;
    let (answer, text) = get(front.address(), "other.example", "/").await;
    assert_eq!(answer.status(), 404);
    let id = answer.headers()["x-request-id"].to_str().expect("text");
    assert!(text.contains(id) && id.len() == 32, "{text}");
    assert!(!text.contains("web"));
    assert_eq!(get(front.address(), "[::1]:80", "/").await.0.status(), 404);
}

#[tokio::test]
async fn a_stopped_machine_is_503_with_retry_after_and_up_again_without_a_restart() {
    let web = says("web").await;
    let front = front(Settings::default()).await;
    lead(&front, [down("web", "web.example", DownReason::Stopped, 30)]);
    let mut client = Wire::connect(front.address()).await;
    let answer = client.get("web.example", "/").await;
    assert_eq!((answer.status, answer.field("retry-after")), (503, Some("30")));
    assert!(answer.body.contains("this site is stopped"), "{}", answer.body);
    assert!(answer.body.contains(answer.field("x-request-id").expect("an id")));

    lead(&front, [up("web", "web.example", web.address)]);
    assert_eq!(client.get("web.example", "/").await.body, "web", "on the same connection");
}

#[tokio::test]
async fn a_machine_that_refuses_is_502_and_one_that_is_silent_is_504() {
    let mut settings = Settings::default();
    settings.timeouts.first_byte = std::time::Duration::from_millis(100);
    let silent = raw_machine(|_, socket| async move {
        std::future::pending::<()>().await;
        drop(socket);
    })
    .await;
    let nobody =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
    let front = front(settings).await;
    lead(&front, [up("a", "silent.example", silent), up("b", "nobody.example", nobody)]);
    assert_eq!(get(front.address(), "nobody.example", "/").await.0.status(), 502);
    let (answer, text) = get(front.address(), "silent.example", "/").await;
    assert_eq!(answer.status(), 504);
    assert!(text.contains("did not answer in time"));
}

#[tokio::test]
async fn a_machine_that_talks_nonsense_is_502() {
    for nonsense in
        ["SSH-2.0-OpenSSH\r\n", "HTTP/1.1 200 OK\r\nbad header\r\n\r\n", "HTTP/1.1 101 Switching\r\n\r\n"]
    {
        let machine = raw_machine(move |_, socket| async move {
            let mut wire = Wire::over(socket);
            wire.head().await;
            wire.send(nonsense).await;
            wire.rest().await;
        })
        .await;
        let front = front_to(Settings::default(), machine).await;
        assert_eq!(get(front.address(), "web.example", "/").await.0.status(), 502, "{nonsense:?}");
    }
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let web = says("web").await;
    let front = front_to(Settings::default(), web.address).await;
    let mut client = Wire::connect(front.address()).await;
    for _ in 0..5 {
        assert_eq!(client.get("web.example", "/").await.status, 200);
    }
    assert_eq!(web.connections(), 1);
    assert_eq!((front.open().connections, front.open().idle_upstreams), (1, 1));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let web =
        Machine::start(|request| async move { Response::new(full(request.uri().path().to_owned())) }).await;
    let front = front_to(Settings::default(), web.address).await;
    let mut client = Wire::connect(front.address()).await;
    let one =
        |path: &str| format!("POST {path} HTTP/1.1\r\nHost: web.example\r\nContent-Length: 2\r\n\r\nhi");
    client.send([one("/1"), one("/2"), one("/3")].concat()).await;
    for path in ["/1", "/2", "/3"] {
        assert_eq!(client.answer().await.body, path);
    }
}

#[tokio::test]
async fn http_2_clients_are_served_many_requests_at_once() {
    let gate = std::sync::Arc::new(tokio::sync::Barrier::new(8));
    let web = Machine::start(move |request| {
        let gate = gate.clone();
        async move {
            gate.wait().await;
            let body = request.into_body().collect().await.expect("a whole body").to_bytes();
            Response::new(full(body))
        }
    })
    .await;
    let front = front_to(Settings::default(), web.address).await;
    let client = http2(front.address()).await;
    let asked = (0..8).map(|number| {
        let mut client = client.clone();
        async move {
            let request = Request::post("http://web.example/x")
                .header("cookie", "a=1")
                .header("cookie", "b=2")
                .body(full(number.to_string()))
                .expect("valid");
            read(client.send_request(request).await.expect("an answer")).await.1
        }
    });
    let mut answers = soon("all answers", futures::future::join_all(asked)).await;
    answers.sort();
    assert_eq!(answers, ["0", "1", "2", "3", "4", "5", "6", "7"]);
    let head = web.last();
    assert_eq!(head.headers["host"], "web.example");
    assert_eq!(head.headers["cookie"], "a=1; b=2");
    assert_eq!(head.uri, "/x");
}

#[tokio::test]
async fn the_head_is_written_anew_for_the_machine() {
    let web = says("web").await;
    let front = front_to(Settings::default(), web.address).await;
    let mut client = Wire::connect(front.address()).await;
    client
        .send(
            "GET http://web.example/a?b=c HTTP/1.1\r\nHost: web.example\r\nConnection: x-hop\r\nX-Hop: 1\r\n\
             X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX_Real_IP: 6.6.6.6\r\nKeep: 1\r\n\
             Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nTracestate: a=b\r\nBaggage: c=d\r\n\r\n",
        )
        .await;
    assert_eq!(client.answer().await.status, 200);
    let head = web.last();
    let field = |name: &str| head.headers.get(name).map(|value| value.to_str().expect("text").to_owned());
    assert_eq!(head.uri, "/a?b=c");
    assert_eq!(field("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(field("forwarded").as_deref(), Some("for=127.0.0.1;proto=http;host=\"web.example\""));
    assert_eq!((field("keep").as_deref(), field("via").as_deref()), (Some("1"), Some("1.1 loam")));
    for gone in ["x-hop", "connection", "x_real_ip", "tracestate", "baggage"] {
        assert_eq!(field(gone), None, "{gone}");
    }
    let trace = field("traceparent").expect("always sent");
    assert!(trace.starts_with("00-") && !trace.contains("4bf92f3577b34da6a3ce929d0e0e4736"), "{trace}");
}

#[tokio::test]
async fn a_trusted_peer_says_who_the_client_is_and_which_trace_goes_on() {
    let web = says("web").await;
    let trusted =
        TrustedPeers { networks: vec!["127.0.0.0/8".parse().expect("valid")], ..Default::default() };
    let front = front_to(Settings { trusted, ..Settings::default() }, web.address).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let ask = |host: &str| {
        Request::get("/")
            .header("host", host)
            .header("x-forwarded-for", "6.6.6.6, 203.0.113.9")
            .header("x-forwarded-proto", "https")
            .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))
            .body(empty())
            .expect("valid")
    };
    let mut client = http1(front.address()).await;
    read(client.send_request(ask("web.example")).await.expect("an answer")).await;
    let head = web.last();
    assert_eq!(head.headers["x-real-ip"], "203.0.113.9");
    assert_eq!(head.headers["x-forwarded-proto"], "https");
    let passed_on = head.headers["traceparent"].to_str().expect("text");
    assert!(passed_on.contains(trace) && !passed_on.contains("00f067aa0ba902b7"), "{passed_on}");

    let (answer, _) = read(client.send_request(ask("other.example")).await.expect("an answer")).await;
    assert_eq!(answer.headers()["x-request-id"], trace);
}

#[tokio::test]
async fn answers_without_a_body_arrive_as_they_are() {
    let web = Machine::start(|request: Request<_>| async move {
        let mut response = Response::new(empty());
        match (request.method(), request.uri().path()) {
            (&Method::HEAD, _) => drop(response.headers_mut().insert("content-length", 12345.into())),
            (_, "/204") => *response.status_mut() = http::StatusCode::NO_CONTENT,
            _ => *response.status_mut() = http::StatusCode::NOT_MODIFIED,
        }
        response
    })
    .await;
    let front = front_to(Settings::default(), web.address).await;
    let mut wire = Wire::connect(front.address()).await;
    wire.send("HEAD / HTTP/1.1\r\nHost: web.example\r\n\r\n").await;
    assert!(wire.head().await.to_ascii_lowercase().contains("content-length: 12345"));
    for (path, status) in [("/204", 204), ("/304", 304)] {
        assert_eq!(wire.get("web.example", path).await.status, status);
    }
    assert_eq!(web.connections(), 1, "none of them spoils the connection to the machine");
}

#[tokio::test]
async fn trailers_pass_but_not_those_that_are_ours_to_say() {
    let machine = raw_machine(|_, socket| async move {
        let mut wire = Wire::over(socket);
        assert!(wire.head().await.contains("te: trailers"));
        wire.send(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
             4\r\ntext\r\n0\r\nx-sum: 7\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n",
        )
        .await;
        wire.rest().await;
    })
    .await;
    let front = front_to(Settings::default(), machine).await;
    let request = Request::get("http://web.example/").header("te", "trailers").body(empty()).expect("valid");
    let answer = http2(front.address()).await.send_request(request).await.expect("an answer");
    let body = soon("the body", answer.into_body().collect()).await.expect("a whole body");
    let trailers = body.trailers().expect("trailers");
    assert_eq!((trailers.len(), &trailers["x-sum"]), (1, &"7".parse().expect("valid")));
}
