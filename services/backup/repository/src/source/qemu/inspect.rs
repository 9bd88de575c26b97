//! Other files that an image refers to, checked before it is opened.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::process::Command;

use super::super::SourceError;
use super::format::ImageFormat;

/// `qemu-img info` reads a header.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(60);
/// Longer stderr of a tool is cut.
pub(super) const STDERR_BYTES_MAX: usize = 4096;

/// What to do about an image that refers to other files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImageReferencePolicy {
    /// Refuse it: its author could make us read any file of this host, as backing file, data file or extent, and store it
    /// in a backup.
    #[default]
    Refuse,
    /// Follow them: the author of the image may read what it names.
    Follow,
}

/// The part of `qemu-img info --output=json` that names other files.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Info {
    backing_filename: Option<String>,
    format_specific: Option<FormatSpecific>,
    #[serde(default)]
    children: Vec<Child>,
}

#[derive(Deserialize)]
struct FormatSpecific {
    #[serde(default)]
    data: Value,
}

#[derive(Deserialize)]
struct Child {
    name: String,
}

impl Info {
    fn reference(&self) -> Option<String> {
        if let Some(name) = &self.backing_filename {
            return Some(format!("the backing file {name}"));
        }
        let data = self.format_specific.as_ref().map(|specific| &specific.data);
        if let Some(name) = data.and_then(|data| data.get("data-file")) {
            return Some(format!("the data file {name}"));
        }
        let other = self.children.iter().find(|child| child.name != "file")?;
        Some(format!("another file as its {}", other.name))
    }
}

/// Refuses an image that refers to other files. Nothing that it refers to is opened for this.
pub(super) async fn refuse_references(path: &Path, format: ImageFormat) -> Result<(), SourceError> {
    let mut command = tool("qemu-img");
    // `-U`: reading the header of an image in use is safe; opening it is refused later where it is not.
    command.args(["info", "-U", "--output=json"]).arg(options(path, format)?);
    let output = run(command, "inspect", path, INSPECT_TIMEOUT).await?;
    let what = path.display().to_string();
    let info: Info = serde_json::from_slice(&output.stdout)
        .map_err(|error| SourceError::Protocol { what: "qemu-img".into(), why: error.to_string() })?;
    match info.reference() {
        None => Ok(()),
        Some(reference) => {
            let why = format!(
                "it refers to {reference}, so that its author could have any file of this host read; allow that \
                 only for images that you trust"
            );
            Err(SourceError::Refused { what, attempt: "be read", why })
        }
    }
}

/// The image as QEMU's tools take it: this file in this format, and nothing behind it whatever it says, even where
/// it was replaced after it was inspected.
pub(super) fn options(path: &Path, format: ImageFormat) -> Result<String, SourceError> {
    let failed = |source| SourceError::Io { attempt: "inspect", what: path.display().to_string(), source };
    let path = std::path::absolute(path).map_err(failed)?;
    let kind = fs::metadata(&path).map_err(failed)?.file_type();
    let name = path.to_str().ok_or_else(|| failed(std::io::Error::other("its name is not UTF-8")))?;
    let driver = if kind.is_block_device() { "host_device" } else { "file" };
    let file = serde_json::json!({ "driver": driver, "filename": name });
    let mut options = serde_json::json!({ "driver": format.name(), "file": file });
    if matches!(format, ImageFormat::Qcow2 | ImageFormat::Qed | ImageFormat::Vmdk) {
        options["backing"] = Value::Null;
    }
    Ok(format!("json:{options}"))
}

/// One of QEMU's tools with nothing of our environment but `PATH`.
pub(super) fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path))).env("LC_ALL", "C");
    // A terminal's interrupt is for us; we end our children ourselves.
    command.process_group(0).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a tool that must succeed in time.
pub(super) async fn run(
    mut command: Command,
    attempt: &'static str,
    path: &Path,
    timeout: Duration,
) -> Result<Output, SourceError> {
    let what = path.display().to_string();
    let output = match tokio::time::timeout(timeout, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(source)) => {
            let program = command.as_std().get_program().display().to_string();
            return Err(SourceError::Io { attempt: "run", what: program, source });
        }
        Err(_) => return Err(SourceError::TimedOut { attempt, what, seconds: timeout.as_secs_f32() }),
    };
    if !output.status.success() {
        return Err(SourceError::Tool { attempt, what, stderr: stderr_text(&output.stderr) });
    }
    Ok(output)
}

/// The stderr of a tool, for an error.
pub(super) fn stderr_text(stderr: &[u8]) -> String {
    let said = String::from_utf8_lossy(&stderr[..stderr.len().min(STDERR_BYTES_MAX)]);
    match said.trim() {
        "" => "no message".to_owned(),
        said => said.to_owned(),
    }
}
