//! What the front says about its work.

use std::io::Write;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use proxy::front::Settings;
use tracing_subscriber::EnvFilter;

use crate::world::{Machine, empty, front_to, full, http1, read};

/// Where log lines go.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("never poisoned").write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn access_lines(&self) -> Vec<serde_json::Value> {
        let bytes = self.0.lock().expect("never poisoned").clone();
        let lines = String::from_utf8(bytes).expect("text");
        lines
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
            .filter(|line| line["target"] == "loam::access")
            .collect()
    }
}

#[tokio::test]
async fn every_request_has_one_access_line_without_its_query() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_env_filter(EnvFilter::new("info"))
        .with_writer(move || writer.clone())
        .finish();
    let _installed = tracing::subscriber::set_default(subscriber);

    let web = Machine::start(|_| async { Response::new(full("hello")) }).await;
    let front = front_to(Settings::default(), web.address).await;
    let mut client = http1(front.address()).await;
    let request = Request::post("/a?password=1")
        .header("host", "WEB.example")
        .body(full("abc"))
        .expect("valid");
    read(client.send_request(request).await.expect("an answer")).await;
    let request = Request::get("/b")
        .header("host", "other.example")
        .body(empty())
        .expect("valid");
    let (refused, _) = read(client.send_request(request).await.expect("an answer")).await;
    testkit::eventually("both lines are written", async || log.access_lines().len() == 2).await;

    let lines = log.access_lines();
    let first = &lines[0]["fields"];
    assert_eq!(first["host"], "web.example");
    assert_eq!(first["path"], "/a");
    assert_eq!(
        (first["status"].as_u64(), first["tries"].as_u64()),
        (Some(200), Some(1))
    );
    assert_eq!(
        (first["bytes_in"].as_u64(), first["bytes_out"].as_u64()),
        (Some(3), Some(5))
    );
    assert_eq!(
        (first["vm"].as_str(), first["outcome"].as_str()),
        (Some("web"), Some("complete"))
    );
    assert_eq!(first["upstream"], web.address.to_string());
    assert_eq!(first["client"], "127.0.0.1");
    assert!(first["duration_ms"].as_f64().is_some_and(|ms| ms > 0.0));
    let trace = web.last().headers["traceparent"]
        .to_str()
        .expect("text")
        .to_owned();
    assert!(
        trace.contains(first["request_id"].as_str().expect("an id")),
        "the machine got the same trace"
    );

    let second = &lines[1]["fields"];
    assert_eq!(second["status"], 404);
    assert_eq!(
        second["request_id"],
        refused.headers()["x-request-id"].to_str().expect("text")
    );
    assert!(
        !log.access_lines()
            .iter()
            .any(|line| line.to_string().contains("password"))
    );
}
