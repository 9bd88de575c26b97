//! An HTTP client for the demo's page.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// One request, connection included.
const REQUEST_MAX: Duration = Duration::from_secs(15);
const BETWEEN: Duration = Duration::from_millis(250);
/// A page of the demo has a few lines; whatever sends more is something else.
const PAGE_BYTES_MAX: u64 = 1 << 20;

/// The response.
#[derive(Clone, Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) body: String,
}

/// Sends a request; `PUT` and `POST` have a body.
pub(super) async fn send(
    address: &str,
    host: &str,
    method: &str,
    path: &str,
    body: &str,
) -> Result<Response, String> {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let work = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        stream.take(PAGE_BYTES_MAX).read_to_end(&mut bytes).await?;
        std::io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let response = timeout(REQUEST_MAX, work)
        .await
        .map_err(|_| format!("http://{address}: no complete response within {} s", REQUEST_MAX.as_secs()))?
        .map_err(|error| format!("http://{address}: {error}"))?;
    let (head, body) =
        response.split_once("\r\n\r\n").ok_or(format!("http://{address}: not an HTTP response"))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or(format!("http://{address}: a response without a status"))?;
    Ok(Response { status, body: body.into() })
}

/// Requests the page until it contains a text, for at most `max`.
pub(super) async fn wait_for_page(
    address: &str,
    host: &str,
    text: &str,
    max: Duration,
) -> Result<String, String> {
    let until = Instant::now() + max;
    loop {
        let last = match send(address, host, "GET", "/", "").await {
            Ok(Response { status: 200, body }) if body.contains(text) => return Ok(body),
            Ok(Response { status, body }) => {
                let line = body.lines().next().unwrap_or_default().to_string();
                format!("http://{address} with Host {host} answers {status} {line}")
            }
            Err(error) => error,
        };
        if Instant::now() >= until {
            return Err(format!("waited {} s for {text:?}: {last}", max.as_secs()));
        }
        tokio::time::sleep(BETWEEN).await;
    }
}
