//! Which upstream gets a request, and what the client gets when none does.

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use proxy::adapters::frontend::Settings;
use proxy::ports::Frontend;
use proxy_domain::VmDownReason;
use proxy_domain::forwarded::TrustedProxies;

use crate::support::{
    RawConnection, TestUpstream, down, empty, frontend, frontend_to, full, get, http1, http2, in_time,
    raw_upstream, read, set_routes, up,
};

async fn responds_with(text: &'static str) -> TestUpstream {
    TestUpstream::start(move |_| async move { Response::new(full(text)) }).await
}

#[tokio::test]
async fn a_request_goes_to_the_vm_whose_domain_it_names() {
    let (web, api) = (responds_with("web").await, responds_with("api").await);
    let frontend = frontend(Settings::default()).await;
    set_routes(&frontend, [up("web", "web.example", web.address), up("api", "api.example", api.address)]);
    for (host, body) in
        [("web.example", "web"), ("API.example", "api"), ("web.example.", "web"), ("api.example:8080", "api")]
    {
        let (response, text) = get(frontend.address(), host, "/").await;
        assert_eq!((response.status().as_u16(), text.as_str()), (200, body), "{host}");
    }
}

#[tokio::test]
async fn an_unknown_host_gets_404_without_any_names() {
    let web = responds_with("web").await;
    let frontend = frontend_to(Settings::default(), web.address).await;
    let (response, text) = get(frontend.address(), "other.example", "/").await;
    assert_eq!(response.status(), 404);
    let id = response.headers()["x-request-id"].to_str().expect("text");
    assert!(text.contains(id) && id.len() == 32, "{text}");
    assert!(!text.contains("web"));
    assert_eq!(get(frontend.address(), "[::1]:80", "/").await.0.status(), 404);
}

#[tokio::test]
async fn a_stopped_vm_is_503_with_retry_after_and_up_again_without_a_restart() {
    let web = responds_with("web").await;
    let frontend = frontend(Settings::default()).await;
    set_routes(&frontend, [down("web", "web.example", VmDownReason::Stopped, 30)]);
    let mut client = RawConnection::connect(frontend.address()).await;
    let response = client.get("web.example", "/").await;
    assert_eq!((response.status, response.field("retry-after")), (503, Some("30")));
    assert!(response.body.contains("this site is stopped"), "{}", response.body);
    assert!(response.body.contains(response.field("x-request-id").expect("an id")));

    set_routes(&frontend, [up("web", "web.example", web.address)]);
    assert_eq!(client.get("web.example", "/").await.body, "web", "on the same connection");
}

#[tokio::test]
async fn an_upstream_that_refuses_is_502_and_one_that_does_not_respond_is_504() {
    let mut settings = Settings::default();
    settings.timeouts.first_byte = std::time::Duration::from_millis(100);
    let silent = raw_upstream(|_, socket| async move {
        std::future::pending::<()>().await;
        drop(socket);
    })
    .await;
    let nobody =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
    let frontend = frontend(settings).await;
    set_routes(&frontend, [up("a", "silent.example", silent), up("b", "nobody.example", nobody)]);
    assert_eq!(get(frontend.address(), "nobody.example", "/").await.0.status(), 502);
    let (response, text) = get(frontend.address(), "silent.example", "/").await;
    assert_eq!(response.status(), 504);
    assert!(text.contains("did not respond in time"));
}

#[tokio::test]
async fn an_invalid_response_is_502() {
    for nonsense in
        ["SSH-2.0-OpenSSH\r\n", "HTTP/1.1 200 OK\r\nbad header\r\n\r\n", "HTTP/1.1 101 Switching\r\n\r\n"]
    {
        let upstream = raw_upstream(move |_, socket| async move {
            let mut connection = RawConnection::over(socket);
            connection.head().await;
            connection.send(nonsense).await;
            connection.rest().await;
        })
        .await;
        let frontend = frontend_to(Settings::default(), upstream).await;
        assert_eq!(get(frontend.address(), "web.example", "/").await.0.status(), 502, "{nonsense:?}");
    }
}

#[tokio::test]
async fn connections_are_reused_on_both_sides() {
    let web = responds_with("web").await;
    let frontend = frontend_to(Settings::default(), web.address).await;
    let mut client = RawConnection::connect(frontend.address()).await;
    for _ in 0..5 {
        assert_eq!(client.get("web.example", "/").await.status, 200);
    }
    assert_eq!(web.connections(), 1);
    assert_eq!((frontend.counts().clients, frontend.counts().idle_upstreams), (1, 1));
}

#[tokio::test]
async fn pipelined_requests_get_their_responses_in_order() {
    let web =
        TestUpstream::start(|request| async move { Response::new(full(request.uri().path().to_owned())) })
            .await;
    let frontend = frontend_to(Settings::default(), web.address).await;
    let mut client = RawConnection::connect(frontend.address()).await;
    let one =
        |path: &str| format!("POST {path} HTTP/1.1\r\nHost: web.example\r\nContent-Length: 2\r\n\r\nhi");
    client.send([one("/1"), one("/2"), one("/3")].concat()).await;
    for path in ["/1", "/2", "/3"] {
        assert_eq!(client.response().await.body, path);
    }
}

#[tokio::test]
async fn http_2_clients_are_served_many_requests_at_once() {
    let gate = std::sync::Arc::new(tokio::sync::Barrier::new(8));
    let web = TestUpstream::start(move |request| {
        let gate = gate.clone();
        async move {
            gate.wait().await;
            let body = request.into_body().collect().await.expect("a whole body").to_bytes();
            Response::new(full(body))
        }
    })
    .await;
    let frontend = frontend_to(Settings::default(), web.address).await;
    let client = http2(frontend.address()).await;
    let asked = (0..8).map(|number| {
        let mut client = client.clone();
        async move {
            let request = Request::post("http://web.example/x")
                .header("cookie", "a=1")
                .header("cookie", "b=2")
                .body(full(number.to_string()))
                .expect("valid");
            read(client.send_request(request).await.expect("a response")).await.1
        }
    });
    let mut responses = in_time("all responses", futures::future::join_all(asked)).await;
    responses.sort();
    assert_eq!(responses, ["0", "1", "2", "3", "4", "5", "6", "7"]);
    let head = web.last();
    assert_eq!(head.headers["host"], "web.example");
    assert_eq!(head.headers["cookie"], "a=1; b=2");
    assert_eq!(head.uri, "/x");
}

#[tokio::test]
async fn the_head_is_rewritten_for_the_upstream() {
    let web = responds_with("web").await;
    let frontend = frontend_to(Settings::default(), web.address).await;
    let mut client = RawConnection::connect(frontend.address()).await;
    client
        .send(
            "GET http://web.example/a?b=c HTTP/1.1\r\nHost: web.example\r\nConnection: x-hop\r\nX-Hop: 1\r\n\
             X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX_Real_IP: 6.6.6.6\r\nKeep: 1\r\n\
             Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nTracestate: a=b\r\nBaggage: c=d\r\n\r\n",
        )
        .await;
    assert_eq!(client.response().await.status, 200);
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
async fn a_trusted_proxy_passes_on_the_client_and_the_trace() {
    let web = responds_with("web").await;
    let trusted_proxies =
        TrustedProxies { networks: vec!["127.0.0.0/8".parse().expect("valid")], ..Default::default() };
    let frontend = frontend_to(Settings { trusted_proxies, ..Settings::default() }, web.address).await;
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
    let mut client = http1(frontend.address()).await;
    read(client.send_request(ask("web.example")).await.expect("a response")).await;
    let head = web.last();
    assert_eq!(head.headers["x-real-ip"], "203.0.113.9");
    assert_eq!(head.headers["x-forwarded-proto"], "https");
    let passed_on = head.headers["traceparent"].to_str().expect("text");
    assert!(passed_on.contains(trace) && !passed_on.contains("00f067aa0ba902b7"), "{passed_on}");

    let (response, _) = read(client.send_request(ask("other.example")).await.expect("a response")).await;
    assert_eq!(response.headers()["x-request-id"], trace);
}

#[tokio::test]
async fn responses_without_a_body_arrive_unchanged() {
    let web = TestUpstream::start(|request: Request<_>| async move {
        let mut response = Response::new(empty());
        match (request.method(), request.uri().path()) {
            (&Method::HEAD, _) => drop(response.headers_mut().insert("content-length", 12345.into())),
            (_, "/204") => *response.status_mut() = http::StatusCode::NO_CONTENT,
            _ => *response.status_mut() = http::StatusCode::NOT_MODIFIED,
        }
        response
    })
    .await;
    let frontend = frontend_to(Settings::default(), web.address).await;
    let mut connection = RawConnection::connect(frontend.address()).await;
    connection.send("HEAD / HTTP/1.1\r\nHost: web.example\r\n\r\n").await;
    assert!(connection.head().await.to_ascii_lowercase().contains("content-length: 12345"));
    for (path, status) in [("/204", 204), ("/304", 304)] {
        assert_eq!(connection.get("web.example", path).await.status, status);
    }
    assert_eq!(web.connections(), 1, "none of them ends the upstream connection");
}

#[tokio::test]
async fn trailers_pass_except_forwarding_headers() {
    let upstream = raw_upstream(|_, socket| async move {
        let mut connection = RawConnection::over(socket);
        assert!(connection.head().await.contains("te: trailers"));
        connection
            .send(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
             4\r\ntext\r\n0\r\nx-sum: 7\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n",
            )
            .await;
        connection.rest().await;
    })
    .await;
    let frontend = frontend_to(Settings::default(), upstream).await;
    let request = Request::get("http://web.example/").header("te", "trailers").body(empty()).expect("valid");
    let response = http2(frontend.address()).await.send_request(request).await.expect("a response");
    let body = in_time("the body", response.into_body().collect()).await.expect("a whole body");
    let trailers = body.trailers().expect("trailers");
    assert_eq!((trailers.len(), &trailers["x-sum"]), (1, &"7".parse().expect("valid")));
}
