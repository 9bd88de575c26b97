//! Receives OTLP over HTTP as a collector does, and keeps every span.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message;

/// A span as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedSpan {
    /// `service.name` of its resource.
    pub service: String,
    /// Its name.
    pub name: String,
    /// Its trace, hexadecimal.
    pub trace: String,
    /// Its own id, hexadecimal.
    pub span: String,
    /// Its parent's id; empty at the root.
    pub parent: String,
    /// Its attributes that are texts.
    pub attributes: BTreeMap<String, String>,
}

#[derive(Default)]
struct Received {
    spans: Vec<ReceivedSpan>,
    bodies: Vec<(String, Bytes)>,
}

type Seen = Arc<Mutex<Received>>;

/// A collector on a port of the system's choice.
pub struct Collector {
    seen: Seen,
    address: SocketAddr,
}

impl Collector {
    /// Opens one.
    pub async fn open() -> Collector {
        let seen = Seen::default();
        // Metrics and logs are kept as they came.
        let router = Router::new()
            .route("/v1/traces", post(receive))
            .route("/v1/metrics", post(keep))
            .route("/v1/logs", post(keep))
            .with_state(Arc::clone(&seen));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move { axum::serve(listener, router).await.expect("serves until the test ends") });
        Collector { seen, address }
    }

    /// What to set as `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every span so far.
    pub fn spans(&self) -> Vec<ReceivedSpan> {
        self.seen.lock().expect("no panic while locked").spans.clone()
    }

    /// Every body so far, spans included, with the path that it was sent to.
    pub fn bodies(&self) -> Vec<(String, Bytes)> {
        self.seen.lock().expect("no panic while locked").bodies.clone()
    }
}

async fn keep(State(seen): State<Seen>, path: Uri, body: Bytes) {
    seen.lock().expect("no panic while locked").bodies.push((path.path().into(), body));
}

async fn receive(seen: State<Seen>, path: Uri, body: Bytes) {
    let request = ExportTraceServiceRequest::decode(body.clone()).expect("OTLP as the specification has it");
    keep(seen.clone(), path, body).await;
    let mut seen = seen.lock().expect("no panic while locked");
    for group in request.resource_spans {
        let attributes = group.resource.map(|resource| resource.attributes).unwrap_or_default();
        let service = texts(attributes).remove("service.name").unwrap_or_default();
        for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            seen.spans.push(ReceivedSpan {
                service: service.clone(),
                name: span.name,
                trace: hex(&span.trace_id),
                span: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                attributes: texts(span.attributes),
            });
        }
    }
}

fn texts(pairs: Vec<opentelemetry_proto::tonic::common::v1::KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<Value>| match value {
        Some(Value::StringValue(text)) => Some(text),
        _ => None,
    };
    pairs.into_iter().filter_map(|pair| Some((pair.key, text(pair.value?.value)?))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
