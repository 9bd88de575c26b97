//! A note on a VM's disk: what its guest would have changed there. It is in the gap before the first partition, so that
//! it goes wherever the disk goes: into a backup, and out of it.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::adapters::qemu_img::run;
use crate::ports::{DiskError, Image};

const MAGIC: &[u8; 16] = b"loam simulation\n";
const NOTE_BYTES: usize = 64 * 1024;
/// The last 64 KiB before the first mebibyte, where partitions begin.
const NOTE_AT_PIECE: usize = 15;
const TOOL_MAX: Duration = Duration::from_secs(20);
/// The longest text of a note: with everything else it fits.
pub(super) const TEXT_BYTES_MAX: usize = 32 * 1024;

/// The note.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SimulatedGuestState {
    /// Scripts that a real VM would have run, with the beginning of their digests.
    pub(super) scripts: Vec<String>,
    /// The text that was sent to the guest.
    pub(super) text: String,
}

/// Reads the note of a disk; an empty one where there is none.
pub(super) async fn read(image: &Image) -> Result<SimulatedGuestState, DiskError> {
    let copy = scratch()?;
    let arguments = [
        "dd".to_owned(),
        "-U".into(),
        "-f".into(),
        image.format.name().into(),
        "-O".into(),
        "raw".into(),
        format!("bs={NOTE_BYTES}"),
        format!("skip={NOTE_AT_PIECE}"),
        format!("count={}", NOTE_AT_PIECE + 1),
        format!("if={}", image.path.display()),
        format!("of={}", copy.path().display()),
    ];
    run("read a simulated guest's note", "qemu-img", arguments, TOOL_MAX).await?;
    let bytes = std::fs::read(copy.path()).map_err(failed)?;
    Ok(parse(&bytes).unwrap_or_default())
}

/// Writes the note of a disk.
pub(super) async fn write(image: &Image, note: &SimulatedGuestState) -> Result<(), DiskError> {
    let copy = scratch()?;
    std::fs::write(copy.path(), compose(note)?).map_err(failed)?;
    let from = copy.path();
    let command = format!("write -s {} {} {NOTE_BYTES}", from.display(), NOTE_AT_PIECE * NOTE_BYTES);
    let arguments = ["-f", image.format.name(), "-c", &command].map(AsRef::<std::ffi::OsStr>::as_ref);
    let arguments = arguments.into_iter().chain([AsRef::<Path>::as_ref(&image.path).as_os_str()]);
    run("write a simulated guest's note", "qemu-io", arguments, TOOL_MAX).await.map(drop)
}

fn scratch() -> Result<tempfile::NamedTempFile, DiskError> {
    tempfile::NamedTempFile::new().map_err(failed)
}

fn failed(source: std::io::Error) -> DiskError {
    DiskError::Io { attempt: "use a file for a simulated guest's note".into(), source }
}

fn compose(note: &SimulatedGuestState) -> Result<Vec<u8>, DiskError> {
    let text = serde_json::to_vec(note).expect("a note is plain data");
    if MAGIC.len() + 4 + text.len() > NOTE_BYTES {
        return Err(DiskError::UnusableImage("the note is too long".into()));
    }
    let mut bytes = MAGIC.to_vec();
    bytes.extend((text.len() as u32).to_be_bytes());
    bytes.extend(text);
    bytes.resize(NOTE_BYTES, 0);
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> Option<SimulatedGuestState> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    serde_json::from_slice(rest.get(..u32::from_be_bytes(*length) as usize)?).ok()
}
