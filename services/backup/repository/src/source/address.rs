//! Where a disk is, as a person writes it after `NAME=`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio::task::spawn_blocking;

use super::qemu::ImageReferencePolicy;
use super::{
    DiskSource, ImageFormat, NbdExportSettings, NbdSource, NotAnNbdUri, QemuImage, RawFile, SourceError,
};

/// A place where a disk can be read.
///
/// ```text
///   /images/web.qcow2                          a file or block device; the format is detected by its first bytes
///   raw:/dev/vg/web   qcow2:/images/web        the same in a given format
///   nbd+unix:///vda?socket=/run/web.sock       an export of an NBD server
///   nbd://host:10809/vda?bitmap=since          the same over TCP, with a dirty bitmap
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskAddress {
    /// An image in a file or on a block device.
    Image {
        /// The file or device.
        path: PathBuf,
        /// Its format; `None` detects it by its first bytes, raw where they are unknown.
        format: Option<ImageFormat>,
        /// A persistent bitmap of a qcow2 image that says what changed since the parent.
        dirty_bitmap: Option<String>,
    },
    /// An export of an NBD server.
    Nbd(NbdExportSettings),
}

/// The text is not the address of a disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotADiskAddress {
    /// It is empty.
    #[error("a disk needs an address: a path, FORMAT:PATH, nbd+unix://… or nbd://…")]
    Empty,
    /// It begins like an NBD URI and is not valid.
    #[error(transparent)]
    Nbd(#[from] NotAnNbdUri),
    /// It begins like some other URI.
    #[error("`{scheme}://` is not a kind of address that disks are read from (nbd+unix, nbd, or a path)")]
    Scheme {
        /// What it begins with.
        scheme: String,
    },
}

impl FromStr for DiskAddress {
    type Err = NotADiskAddress;

    fn from_str(text: &str) -> Result<DiskAddress, NotADiskAddress> {
        if text.starts_with("nbd://") || text.starts_with("nbd+unix://") {
            return Ok(DiskAddress::Nbd(text.parse()?));
        }
        let (format, path) = match text.split_once(':') {
            Some((prefix, rest)) if rest.starts_with("//") && is_scheme(prefix) => {
                return Err(NotADiskAddress::Scheme { scheme: prefix.to_owned() });
            }
            Some((prefix, rest)) => match prefix.parse() {
                Ok(format) => (Some(format), rest),
                Err(_) => (None, text),
            },
            None => (None, text),
        };
        if path.is_empty() {
            return Err(NotADiskAddress::Empty);
        }
        Ok(DiskAddress::Image { path: PathBuf::from(path), format, dirty_bitmap: None })
    }
}

fn is_scheme(prefix: &str) -> bool {
    prefix.parse::<ImageFormat>().is_err()
        && prefix.starts_with(|first: char| first.is_ascii_alphabetic())
        && prefix.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

impl From<&Path> for DiskAddress {
    fn from(path: &Path) -> DiskAddress {
        DiskAddress::Image { path: path.to_owned(), format: None, dirty_bitmap: None }
    }
}

impl fmt::Display for DiskAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskAddress::Image { path, format: None, .. } => path.display().fmt(f),
            DiskAddress::Image { path, format: Some(format), .. } => write!(f, "{format}:{}", path.display()),
            DiskAddress::Nbd(settings) => settings.fmt(f),
        }
    }
}

impl DiskAddress {
    /// The same disk with a dirty bitmap: QEMU's bitmap of that name.
    #[must_use]
    pub fn with_dirty_bitmap(mut self, name: &str) -> DiskAddress {
        match &mut self {
            DiskAddress::Image { dirty_bitmap, .. } => *dirty_bitmap = Some(name.to_owned()),
            DiskAddress::Nbd(settings) => settings.dirty_bitmap = Some(name.to_owned()),
        }
        self
    }

    /// Opens the disk for reading.
    ///
    /// # Errors
    /// When it is not there, cannot be read, refers to other files and `references` does not allow it, or has no
    /// such dirty bitmap.
    pub async fn open(&self, references: ImageReferencePolicy) -> Result<Box<dyn DiskSource>, SourceError> {
        match self {
            DiskAddress::Nbd(settings) => Ok(Box::new(NbdSource::connect(settings).await?)),
            DiskAddress::Image { path, format, dirty_bitmap } => {
                let format = match format {
                    Some(format) => *format,
                    None => probe(path).await?,
                };
                match (format, dirty_bitmap) {
                    (ImageFormat::Raw, None) => {
                        let path = path.clone();
                        let opened = spawn_blocking(move || RawFile::open(&path)).await;
                        Ok(Box::new(opened.expect("opening a file does not panic")?))
                    }
                    (ImageFormat::Raw, Some(name)) => Err(SourceError::Refused {
                        what: path.display().to_string(),
                        attempt: "list changes",
                        why: format!("a raw image holds no bitmap {name}"),
                    }),
                    (format, bitmap) => {
                        Ok(Box::new(QemuImage::open(path, format, references, bitmap.as_deref()).await?))
                    }
                }
            }
        }
    }
}

/// The format of an image by its first bytes.
pub(crate) async fn probe(path: &Path) -> Result<ImageFormat, SourceError> {
    let what = path.display().to_string();
    let path = path.to_owned();
    let probed = spawn_blocking(move || ImageFormat::probe(&path)).await;
    probed.expect("probing a file does not panic").map_err(|source| SourceError::Io {
        attempt: "inspect",
        what,
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(path: &str, format: Option<ImageFormat>) -> DiskAddress {
        DiskAddress::Image { path: path.into(), format, dirty_bitmap: None }
    }

    #[test]
    fn addresses_are_parsed_as_a_person_writes_them() {
        for (text, expected) in [
            ("/images/web", image("/images/web", None)),
            ("web.img", image("web.img", None)),
            ("raw:/dev/vg/web", image("/dev/vg/web", Some(ImageFormat::Raw))),
            ("qcow2:web:1", image("web:1", Some(ImageFormat::Qcow2))),
            ("/a:b", image("/a:b", None)),
            ("vmdk:/x", image("/x", Some(ImageFormat::Vmdk))),
            ("raw://x", image("//x", Some(ImageFormat::Raw))),
        ] {
            let parsed: DiskAddress = text.parse().unwrap();
            assert_eq!(parsed, expected);
            assert_eq!(parsed.to_string(), text);
        }
        let nbd: DiskAddress = "nbd://h/x?bitmap=b".parse().unwrap();
        assert!(matches!(nbd, DiskAddress::Nbd(settings) if settings.dirty_bitmap.as_deref() == Some("b")));
        for wrong in ["", "raw:", "https://x/y", "nbd+unix:///x", "nbd+unix:///x?socket=rel"] {
            assert!(wrong.parse::<DiskAddress>().is_err(), "{wrong}");
        }
    }
}
