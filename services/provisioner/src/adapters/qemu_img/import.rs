//! Importing a seed: copied or downloaded through a SHA-256, inspected, checked, and kept.
//!
//! ```text
//!   transfer   copy or download, hashed on the way
//!   header     what the first bytes say, without QEMU: nothing that would open another file of this host gets further
//!   check      what QEMU's own check says, in a child process with limits; and whether the disk can boot
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use contract::ByteCount;
use tokio::io::AsyncReadExt;

use super::check::{check_boots, check_qcow2};
use super::header::{HEAD_BYTES, ImageKind, inspect};
use super::run;
use super::transfer::{copy, download};
use crate::ports::{DiskError, ImportedSeedImage, ProgressCallback, SeedImageSource};

const CONVERT_MAX: Duration = Duration::from_secs(3600);
const INFO_MAX: Duration = Duration::from_secs(20);

/// Imports an image to `place`, by way of a file beside it.
pub(super) async fn import(
    source: &SeedImageSource,
    sha256: &str,
    place: &Path,
    report: ProgressCallback<'_>,
) -> Result<ImportedSeedImage, DiskError> {
    if tokio::fs::try_exists(place)
        .await
        .map_err(|source| DiskError::Io { attempt: format!("find {}", place.display()), source })?
    {
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
    let (head, length) = head(&part.0).await?;
    match inspect(&head, length)? {
        ImageKind::Qcow2 => {
            check_qcow2(&part.0).await?;
            check_boots(&part.0).await?;
            keep(&part.0, place).await?;
        }
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

/// The first bytes of a file, and how many it has.
async fn head(path: &Path) -> Result<(Vec<u8>, u64), DiskError> {
    let unreadable = |source| DiskError::Io { attempt: format!("read {}", path.display()), source };
    let mut file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let length = file.metadata().await.map_err(unreadable)?.len();
    let mut head = Vec::with_capacity(HEAD_BYTES);
    (&mut file).take(HEAD_BYTES as u64).read_to_end(&mut head).await.map_err(unreadable)?;
    Ok((head, length))
}

/// A seed is never written again, and QEMU's user may read it; the folder above decides who else may.
async fn keep(part: &Path, place: &Path) -> Result<(), DiskError> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |source| DiskError::Io { attempt: format!("keep {}", place.display()), source };
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
