//! What is served, and under which name.

use std::fmt;
use std::sync::Arc;

use backup_repository::DiskSource;
use backup_repository::nbd_wire::*;

use super::request::NegotiatedExport;
use crate::overlay::Overlay;

/// A disk under a name.
#[derive(Clone)]
pub struct Export {
    name: String,
    pub(super) disk: Arc<dyn DiskSource>,
    /// The same disk, where it may be written.
    pub(super) overlay: Option<Arc<Overlay>>,
}

/// The name is not valid in the protocol.
#[derive(Debug, thiserror::Error)]
#[error("an export's name has 1 to {STRING_BYTES_MAX} bytes and no NUL: {name:?} is none")]
pub struct ExportNameRefused {
    name: String,
}

impl Export {
    /// Serves a disk that clients can only read.
    ///
    /// # Errors
    /// When the name is empty, longer than 4096 bytes or holds a NUL.
    pub fn read_only(name: &str, disk: Arc<dyn DiskSource>) -> Result<Export, ExportNameRefused> {
        if name.is_empty() || name.len() > STRING_BYTES_MAX || name.contains('\0') {
            return Err(ExportNameRefused { name: name.to_owned() });
        }
        Ok(Export { name: name.to_owned(), disk, overlay: None })
    }

    /// Serves a disk that clients may write; what they write stays in the overlay.
    ///
    /// # Errors
    /// As [`read_only`](Export::read_only).
    pub fn writable(name: &str, overlay: Arc<Overlay>) -> Result<Export, ExportNameRefused> {
        let disk: Arc<dyn DiskSource> = Arc::<Overlay>::clone(&overlay);
        Ok(Export { overlay: Some(overlay), ..Export::read_only(name, disk)? })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }

    pub(super) fn terms(&self, structured: bool, allocation: bool) -> NegotiatedExport {
        NegotiatedExport {
            size_bytes: self.size_bytes(),
            writable: self.overlay.is_some(),
            structured,
            base_allocation: allocation,
        }
    }

    /// What clients may do with it. Several connections at once are fine, also where they write: what was acknowledged
    /// to one is read by all, and a flush of one is a flush of all.
    pub(super) fn transmission_flags(&self) -> u16 {
        let always = FLAG_HAS_FLAGS | FLAG_SEND_FLUSH | FLAG_SEND_DF | FLAG_CAN_MULTI_CONN | FLAG_SEND_CACHE;
        match self.overlay {
            None => always | FLAG_READ_ONLY,
            Some(_) => always | FLAG_SEND_FUA | FLAG_SEND_TRIM | FLAG_SEND_WRITE_ZEROES,
        }
    }
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The export a client means. An empty name means the only one, where there is one.
pub(super) fn find<'a>(exports: &'a [Export], name: &str) -> Option<&'a Export> {
    match exports {
        [only] if name.is_empty() => Some(only),
        _ => exports.iter().find(|export| export.name == name),
    }
}
