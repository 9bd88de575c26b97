//! Importing a seed: copied or downloaded through a SHA-256, inspected, and kept.

use std::path::{Path, PathBuf};
use std::time::Duration;

use contract::ByteCount;
use futures::StreamExt;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::header::{HEADER_BYTES, ImageKind, inspect};
use super::run;
use crate::ports::{DiskError, ImportedSeedImage, ProgressCallback, SeedImageSource};

/// As much as is read, hashed and written at a time.
const PIECE_BYTES: usize = 1 << 20;
/// The largest image: cloud images have a few gigabytes.
const IMAGE_BYTES_MAX: u64 = 256 << 30;
const CONNECT_MAX: Duration = Duration::from_secs(15);
/// A server that sends nothing for so long has hung.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const CONVERT_MAX: Duration = Duration::from_secs(3600);
const INFO_MAX: Duration = Duration::from_secs(20);

/// Imports an image to `place`, by way of a file beside it.
pub(super) async fn import(
    source: &SeedImageSource,
    sha256: &str,
    place: &Path,
    report: ProgressCallback<'_>,
) -> Result<ImportedSeedImage, DiskError> {
    if tokio::fs::try_exists(place).await.map_err(|source| io(format!("find {}", place.display()), source))? {
        // It was moved here only after it had been checked.
        return about(place).await;
    }
    let part = Part(place.with_extension(format!("{:016x}.part", rand::random::<u64>())));
    let seen = match source {
        SeedImageSource::File(path) => copy(path, &part.0, report).await?,
        SeedImageSource::Url(url) => download(url, &part.0, report).await?,
    };
    if seen != sha256 {
        return Err(DiskError::UnusableImage(format!(
            "the image has SHA-256 {seen}, not {sha256}: it is another one, or damaged"
        )));
    }
    match inspect(&head(&part.0).await?)? {
        ImageKind::Qcow2 => keep(&part.0, place).await?,
        ImageKind::Raw => {
            let packed = Part(part.0.with_extension("qcow2.part"));
            let [from, to] = [&part.0, &packed.0].map(|path| path.as_os_str());
            let arguments = ["convert", "-f", "raw", "-O", "qcow2", "-W"].map(AsRef::as_ref);
            let arguments = arguments.into_iter().chain([from, to]);
            run("convert a raw image", "qemu-img", arguments, CONVERT_MAX).await?;
            keep(&packed.0, place).await?;
        }
    }
    about(place).await
}

/// A file that is removed again unless it was moved away.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        match std::fs::remove_file(&self.0) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %self.0.display(), %error, "a half-made file stays"),
        }
    }
}

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

async fn copy(from: &Path, to: &Path, report: ProgressCallback<'_>) -> Result<String, DiskError> {
    let unreadable = |source| io(format!("read {}", from.display()), source);
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

async fn download(url: &str, to: &Path, report: ProgressCallback<'_>) -> Result<String, DiskError> {
    let failed = |error: reqwest::Error| DiskError::Download { url: url.to_owned(), source: error.into() };
    let client = reqwest::Client::builder()
        .connect_timeout(CONNECT_MAX)
        .read_timeout(SILENCE_MAX)
        .build()
        .map_err(failed)?;
    let answer = client.get(url).send().await.map_err(failed)?;
    let status = answer.status();
    if status.is_client_error() {
        return Err(DiskError::UnusableImage(format!("{url} answers {status}")));
    }
    let answer = answer.error_for_status().map_err(failed)?;
    let total = answer.content_length().unwrap_or(0);
    let mut sink = Sink::create(to).await?;
    let mut pieces = answer.bytes_stream();
    while let Some(piece) = pieces.next().await {
        sink.take(&piece.map_err(failed)?).await?;
        report(sink.written, total);
    }
    sink.finish().await
}

async fn head(path: &Path) -> Result<Vec<u8>, DiskError> {
    let unreadable = |source| io(format!("read {}", path.display()), source);
    let mut file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let mut header = Vec::with_capacity(HEADER_BYTES);
    (&mut file).take(HEADER_BYTES as u64).read_to_end(&mut header).await.map_err(unreadable)?;
    Ok(header)
}

/// A seed is never written again, and QEMU's user may read it; the folder above decides who else may.
async fn keep(part: &Path, place: &Path) -> Result<(), DiskError> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |source| io(format!("keep {}", place.display()), source);
    tokio::fs::set_permissions(part, PermissionsExt::from_mode(0o444)).await.map_err(failed)?;
    tokio::fs::rename(part, place).await.map_err(failed)
}

async fn about(place: &Path) -> Result<ImportedSeedImage, DiskError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Info {
        virtual_size: u64,
        actual_size: u64,
    }
    let attempt = format!("inspect {}", place.display());
    let arguments = ["info", "--output=json", "--force-share", "-f", "qcow2"].map(AsRef::as_ref);
    let arguments = arguments.into_iter().chain([place.as_os_str()]);
    let output = run(&attempt, "qemu-img", arguments, INFO_MAX).await?;
    let info: Info = serde_json::from_slice(&output)
        .map_err(|error| DiskError::QemuImgFailed { attempt, source: error.into() })?;
    Ok(ImportedSeedImage {
        virtual_size: ByteCount(info.virtual_size),
        stored_size: ByteCount(info.actual_size),
    })
}
