//! The bytes of an image from elsewhere: copied from a file or downloaded, and hashed on the way.
//!
//! A download that is cut goes on where it was cut, if its server answers ranges (RFC 9110, 14), else from the start. What
//! cannot succeed later is an error at once: a file or an address that does not exist.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use contract::ByteCount;
use contract::message::with_causes;
use futures::StreamExt;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, IF_RANGE, LAST_MODIFIED, RANGE};
use reqwest::{Client, Response, StatusCode};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use crate::ports::{DiskError, ProgressCallback};

/// As much as is read, hashed and written at a time.
const PIECE_BYTES: usize = 1 << 20;
/// The largest image: cloud images have a few gigabytes.
const IMAGE_BYTES_MAX: u64 = 256 << 30;
const CONNECT_MAX: Duration = Duration::from_secs(15);
/// A server that sends nothing for so long has hung.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Attempts in a row that bring nothing more, before the download as a whole fails.
const FRUITLESS_ATTEMPTS_MAX: u32 = 8;
const RESUME_PAUSE_FIRST: Duration = Duration::from_millis(500);
const RESUME_PAUSE_MAX: Duration = Duration::from_secs(10);

fn io(attempt: String, source: std::io::Error) -> DiskError {
    DiskError::Io { attempt, source }
}

/// Writes pieces to a file and hashes them on the way.
struct Sink {
    file: tokio::fs::File,
    hasher: Sha256,
    written: u64,
    path: PathBuf,
}

impl Sink {
    async fn create(path: &Path) -> Result<Sink, DiskError> {
        let file = tokio::fs::File::create(path)
            .await
            .map_err(|source| io(format!("create {}", path.display()), source))?;
        Ok(Sink { file, hasher: Sha256::new(), written: 0, path: path.into() })
    }

    /// Forgets everything that was taken.
    async fn restart(&mut self) -> Result<(), DiskError> {
        let emptied = match self.file.set_len(0).await {
            Ok(()) => self.file.rewind().await.map(drop),
            failed => failed,
        };
        emptied.map_err(|source| io(format!("empty {}", self.path.display()), source))?;
        (self.hasher, self.written) = (Sha256::new(), 0);
        Ok(())
    }

    async fn take(&mut self, piece: &[u8]) -> Result<(), DiskError> {
        self.written += piece.len() as u64;
        if self.written > IMAGE_BYTES_MAX {
            let most = ByteCount(IMAGE_BYTES_MAX);
            return Err(DiskError::UnusableImage(format!("the image is larger than {most}")));
        }
        // A mebibyte takes a few milliseconds; the other runtime thread goes on meanwhile.
        self.hasher.update(piece);
        self.file
            .write_all(piece)
            .await
            .map_err(|source| io(format!("write {}", self.path.display()), source))
    }

    async fn finish(mut self) -> Result<String, DiskError> {
        let path = self.path.display().to_string();
        let flushed = match self.file.flush().await {
            Ok(()) => self.file.sync_all().await,
            failed => failed,
        };
        flushed.map_err(|source| io(format!("write {path}"), source))?;
        Ok(hex::encode(self.hasher.finalize()))
    }
}

/// Copies an image, and returns its SHA-256.
pub(super) async fn copy(from: &Path, to: &Path, report: ProgressCallback<'_>) -> Result<String, DiskError> {
    let unreadable = |source: std::io::Error| match source.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::PermissionDenied => {
            DiskError::UnusableImage(format!("{}: {source}", from.display()))
        }
        _ => io(format!("read {}", from.display()), source),
    };
    let about = tokio::fs::metadata(from).await.map_err(unreadable)?;
    if !about.is_file() {
        return Err(DiskError::UnusableImage(format!("{} is not a file", from.display())));
    }
    let mut file = tokio::fs::File::open(from).await.map_err(unreadable)?;
    let mut sink = Sink::create(to).await?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece).await.map_err(unreadable)? {
            0 => return sink.finish().await,
            count => sink.take(&piece[..count]).await?,
        }
        report(sink.written, about.len());
    }
}

/// Downloads an image, and returns its SHA-256.
pub(super) async fn download(
    url: &str,
    to: &Path,
    report: ProgressCallback<'_>,
) -> Result<String, DiskError> {
    let client = Client::builder()
        .connect_timeout(CONNECT_MAX)
        .read_timeout(SILENCE_MAX)
        .build()
        .map_err(|error| failed(url, error))?;
    let mut sink = Sink::create(to).await?;
    let mut version = None;
    let (mut fruitless, mut pause) = (0, RESUME_PAUSE_FIRST);
    loop {
        let before = sink.written;
        let error = match fetch(&client, url, &mut sink, &mut version, report).await {
            Ok(()) => return sink.finish().await,
            Err(error) => error,
        };
        if sink.written > before {
            (fruitless, pause) = (0, RESUME_PAUSE_FIRST);
        } else {
            fruitless += 1;
        }
        // Where nothing has come yet, the caller decides whether to try again.
        if !error.is_transient() || sink.written == 0 || fruitless == FRUITLESS_ATTEMPTS_MAX {
            return Err(error);
        }
        tracing::warn!(
            url,
            error = with_causes(&error),
            bytes = sink.written,
            "a download was cut; it goes on"
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RESUME_PAUSE_MAX);
    }
}

fn failed(url: &str, error: reqwest::Error) -> DiskError {
    if error.is_builder() || error.is_redirect() {
        return DiskError::UnusableImage(format!("{url}: {}", with_causes(&error)));
    }
    DiskError::Download { url: url.to_owned(), source: error.into() }
}

/// Fetches what the sink does not have yet. `version` is what its server calls the file that the sink's bytes are from.
async fn fetch(
    client: &Client,
    url: &str,
    sink: &mut Sink,
    version: &mut Option<String>,
    report: ProgressCallback<'_>,
) -> Result<(), DiskError> {
    let mut request = client.get(url).header(ACCEPT_ENCODING, "identity");
    if sink.written > 0 {
        request = request.header(RANGE, format!("bytes={}-", sink.written));
        if let Some(version) = version.as_deref() {
            request = request.header(IF_RANGE, version);
        }
    }
    let answer = request.send().await.map_err(|error| failed(url, error))?;
    let status = answer.status();
    if let Some(reason) = permanent(status, sink.written) {
        return Err(DiskError::UnusableImage(format!("{url} answers {status}{reason}")));
    }
    let answer = answer.error_for_status().map_err(|error| failed(url, error))?;
    let total = match range_of(&answer) {
        Some((from, total)) if from == sink.written => total,
        // Another part than was asked for: all of it is fetched again.
        Some((from, _)) => {
            sink.restart().await?;
            let source = format!("the server sent a part that begins at byte {from}").into();
            return Err(DiskError::Download { url: url.to_owned(), source });
        }
        // All of it: the file is another one by now, or its server knows no ranges.
        None => {
            sink.restart().await?;
            answer.content_length().unwrap_or(0)
        }
    };
    *version = version_of(answer.headers());
    let mut pieces = answer.bytes_stream();
    while let Some(piece) = pieces.next().await {
        sink.take(&piece.map_err(|error| failed(url, error))?).await?;
        report(sink.written, total);
    }
    Ok(())
}

/// Why an answer will not become another one, for a sentence; `None` where it may.
fn permanent(status: StatusCode, have: u64) -> Option<&'static str> {
    match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => None,
        StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => {
            Some(": the image became shorter while it was downloaded")
        }
        status if status.is_client_error() => Some(""),
        _ => None,
    }
}

/// Where a partial answer begins, and the length of the whole file, 0 where unknown.
fn range_of(answer: &Response) -> Option<(u64, u64)> {
    if answer.status() != StatusCode::PARTIAL_CONTENT {
        return None;
    }
    let text = answer.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (from, _) = range.split_once('-')?;
    Some((from.trim().parse().ok()?, total.trim().parse().unwrap_or(0)))
}

/// A strong entity tag, or else the time of the last change (RFC 9110, 13.1.5).
fn version_of(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    text(ETAG).filter(|tag| !tag.starts_with("W/")).or_else(|| text(LAST_MODIFIED))
}
