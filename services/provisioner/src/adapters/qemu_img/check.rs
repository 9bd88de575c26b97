//! What QEMU's own tools say of an image from elsewhere. They run as child processes with limits: a header can be made so
//! that reading it takes all memory, or for ever.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use super::tool::output_of;
use crate::ports::DiskError;

/// Address space: the child's libraries and threads take a quarter of that, the tables of the largest image the rest.
/// Seconds of processor time: the tables of an image of 256 GiB take a few.
const LIMITS: [&str; 3] = ["--as=2147483648", "--cpu=300", "--core=0"];
/// With a slow disk of the host.
const CHECK_MAX: Duration = Duration::from_secs(1800);
/// As much of an error as fits a sentence.
const REASON_CHARS_MAX: usize = 300;
/// The end of the first sector of every disk that a PC boots from, with MBR or GPT.
const BOOT_SIGNATURE: [u8; 2] = [0x55, 0xaa];
pub(super) const SECTOR_BYTES: usize = 512;

/// Whether a first sector is that of a disk that can boot.
pub(super) fn has_boot_signature(sector: &[u8]) -> bool {
    sector.get(SECTOR_BYTES - 2..SECTOR_BYTES) == Some(&BOOT_SIGNATURE)
}

pub(super) fn cannot_boot() -> DiskError {
    let reason = "the image is not a disk that can boot: its first sector has no boot signature (0x55 0xAA)";
    DiskError::UnusableImage(reason.into())
}

/// Checks the tables of a qcow2 image. Clusters that are only leaked do no harm.
///
/// # Errors
/// [`DiskError::UnusableImage`] when it is damaged, or cannot be checked within the limits.
pub(super) async fn check_qcow2(image: &Path) -> Result<(), DiskError> {
    let output = qemu_img("check an image", &["check", "-q", "-f", "qcow2"], image, &LIMITS).await?;
    match output.status.code() {
        Some(0 | 3) => Ok(()),
        Some(1) => Err(unusable("the image is damaged or incomplete", &output)),
        Some(2) => Err(unusable("the image is damaged", &output)),
        Some(other) => {
            let reason = format!("it ended with {other}: {}", String::from_utf8_lossy(&output.stderr).trim());
            Err(DiskError::QemuImgFailed { attempt: "check an image".into(), source: reason.into() })
        }
        None => Err(unusable("the image cannot be checked within the limits of memory and time", &output)),
    }
}

/// Checks that the disk in a qcow2 image begins with a boot sector.
///
/// # Errors
/// [`DiskError::UnusableImage`] where it does not.
pub(super) async fn check_boots(image: &Path) -> Result<(), DiskError> {
    let sector = image.with_extension("sector.part");
    let target = format!("of={}", sector.display());
    let arguments = ["dd", "-f", "qcow2", "-O", "raw", "bs=512", "count=1", &target];
    let mut source = std::ffi::OsString::from("if=");
    source.push(image);
    let copied = qemu_img("read the first sector of an image", &arguments, Path::new(&source), &LIMITS).await;
    let read = std::fs::read(&sector);
    // Where it was not written there is nothing to remove.
    let _ = std::fs::remove_file(&sector);
    let output = copied?;
    match read {
        Ok(sector) if output.status.success() && has_boot_signature(&sector) => Ok(()),
        Ok(_) if output.status.success() => Err(cannot_boot()),
        _ => Err(unusable("the first sector of the image cannot be read", &output)),
    }
}

async fn qemu_img(
    attempt: &str,
    arguments: &[&str],
    image: &Path,
    limits: &[&str],
) -> Result<Output, DiskError> {
    let program = ["--", "qemu-img"];
    let all = limits.iter().chain(&program).chain(arguments).map(AsRef::as_ref);
    output_of(attempt, "prlimit", all.chain([image.as_os_str()]), CHECK_MAX).await
}

fn unusable(what: &str, output: &Output) -> DiskError {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let detail: String = lines.join("; ").chars().take(REASON_CHARS_MAX).collect();
    DiskError::UnusableImage(if detail.is_empty() { what.into() } else { format!("{what}: {detail}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_check_that_needs_more_than_its_limits_ends_as_unusable() {
        let folder = tempfile::tempdir().expect("a folder");
        let image = folder.path().join("image.qcow2");
        let created = std::process::Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2"])
            .arg(&image)
            .arg("1G")
            .status();
        assert!(created.expect("qemu-img").success());
        check_qcow2(&image).await.expect("a good image");
        let arguments = ["check", "-q", "-f", "qcow2"];
        let starved = qemu_img("check", &arguments, &image, &["--as=1048576"]).await.expect("it was started");
        assert!(!starved.status.success(), "{starved:?}");
    }
}
