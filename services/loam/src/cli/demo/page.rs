//! A visitor of the page, as plain as can be.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// One visit, connection included.
const VISIT_MAX: Duration = Duration::from_secs(15);
const BETWEEN: Duration = Duration::from_millis(250);
/// A page of the demo has a few lines; whatever sends more is something else.
const PAGE_BYTES_MAX: u64 = 1 << 20;

/// What came back.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

/// Visits a page: `PUT` and `POST` bring a body along.
pub(super) async fn visit(
    address: &str,
    host: &str,
    method: &str,
    path: &str,
    body: &str,
) -> Result<Answer, String> {
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
    let text = timeout(VISIT_MAX, work)
        .await
        .map_err(|_| format!("http://{address}: no whole answer within {} s", VISIT_MAX.as_secs()))?
        .map_err(|error| format!("http://{address}: {error}"))?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(format!("http://{address}: not an HTTP answer"))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or(format!("http://{address}: an answer without a status"))?;
    Ok(Answer { status, body: body.into() })
}

/// Visits again until the page says what it should, or patience ends.
pub(super) async fn until_it_says(
    address: &str,
    host: &str,
    words: &str,
    patience: Duration,
) -> Result<String, String> {
    let until = Instant::now() + patience;
    loop {
        let seen = match visit(address, host, "GET", "/", "").await {
            Ok(Answer { status: 200, body }) if body.contains(words) => return Ok(body),
            Ok(Answer { status, body }) => {
                let line = body.lines().next().unwrap_or_default().to_string();
                format!("http://{address} with Host {host} says {status} {line}")
            }
            Err(error) => error,
        };
        if Instant::now() >= until {
            return Err(format!("waited {} s for {words:?}: {seen}", patience.as_secs()));
        }
        tokio::time::sleep(BETWEEN).await;
    }
}
