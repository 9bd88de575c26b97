//! An S3 service in memory, as small as the engine needs it, that answers 500 on request. SeaweedFS proves that the
//! engine speaks S3; this one proves what happens when S3 speaks badly.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

type Objects = Arc<Mutex<BTreeMap<String, Bytes>>>;

/// The server; its objects are lost with it.
pub struct TinyS3 {
    port: u16,
    down: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct Served {
    objects: Objects,
    down: Arc<AtomicBool>,
}

impl TinyS3 {
    pub async fn start() -> TinyS3 {
        let down = Arc::new(AtomicBool::new(false));
        let served = Served { objects: Objects::default(), down: Arc::clone(&down) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("the listener is bound").port();
        let router = Router::new()
            .fallback(answer)
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(served);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("the server runs") });
        TinyS3 { port, down, task }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Answers 500 to everything, or no longer.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }
}

impl Drop for TinyS3 {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    State(served): State<Served>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if served.down.load(Ordering::SeqCst) {
        return (StatusCode::INTERNAL_SERVER_ERROR, "out of order").into_response();
    }
    let mut objects = served.objects.lock().expect("nobody panics here");
    // Path style: /bucket/key
    let key = uri.path().splitn(3, '/').nth(2).unwrap_or_default().to_owned();
    match method {
        Method::PUT if headers.contains_key(header::IF_NONE_MATCH) && objects.contains_key(&key) => {
            StatusCode::PRECONDITION_FAILED.into_response()
        }
        Method::PUT => {
            objects.insert(key, body);
            ([(header::ETAG, "\"1\"")], "").into_response()
        }
        Method::DELETE => {
            objects.remove(&key);
            StatusCode::NO_CONTENT.into_response()
        }
        Method::GET if key.is_empty() => list(&objects, uri.query().unwrap_or_default()),
        Method::GET => match objects.get(&key) {
            Some(object) => give(object, headers.get(header::RANGE).and_then(|range| range.to_str().ok())),
            None => (StatusCode::NOT_FOUND, "<Error><Code>NoSuchKey</Code></Error>").into_response(),
        },
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

const DATE: &str = "Mon, 01 Jan 2024 00:00:00 GMT";

fn give(object: &Bytes, range: Option<&str>) -> Response {
    let marks = [(header::ETAG, "\"1\""), (header::LAST_MODIFIED, DATE)];
    let Some((first, last)) = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) else {
        return (marks, object.clone()).into_response();
    };
    let first: usize = first.parse().expect("a number");
    let last = last.parse().map_or(object.len(), |last: usize| last + 1).min(object.len());
    let content_range = format!("bytes {first}-{}/{}", last - 1, object.len());
    let part = object.slice(first..last);
    (StatusCode::PARTIAL_CONTENT, marks, [(header::CONTENT_RANGE, content_range)], part).into_response()
}

fn list(objects: &BTreeMap<String, Bytes>, query: &str) -> Response {
    let prefix = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("prefix="))
        .unwrap_or_default()
        .replace("%2F", "/");
    let contents: String = objects
        .iter()
        .filter(|(key, _)| key.starts_with(&prefix))
        .map(|(key, object)| {
            format!(
                "<Contents><Key>{key}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>\"1\"</ETag>\
                 <Size>{}</Size></Contents>",
                object.len()
            )
        })
        .collect();
    format!("<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>").into_response()
}
