//! The files of the folder: disks and their partitions, under names and numbers.

use std::ops::Range;
use std::sync::Arc;

use backup_repository::DiskSource;

use super::error::MountError;
use crate::files::{FileSystem, FileSystemLocation, file_system, partitions};

/// A file name of Linux has at most 255 bytes; the number of a partition takes some of them.
const NAME_BYTES_MAX: usize = 250;

/// A disk or a partition.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) disk: Arc<dyn DiskSource>,
    pub(super) bytes: Range<u64>,
    pub(super) file_system: FileSystem,
}

impl Node {
    pub(super) fn size_bytes(&self) -> u64 {
        self.bytes.end - self.bytes.start
    }
}

/// Finds the partitions of each disk. A disk whose table is damaged is shown without any: its bytes may still be
/// needed for a rescue.
pub(super) async fn nodes(disks: Vec<(String, Arc<dyn DiskSource>)>) -> Result<Vec<Node>, MountError> {
    let mut nodes: Vec<Node> = Vec::new();
    for (name, disk) in disks {
        check(&name)?;
        let found = match partitions(&disk).await {
            Ok(found) => found,
            Err(error @ crate::files::FilesError::Damaged { .. }) => {
                tracing::warn!(disk = name, %error, "the partitions of a disk are not shown");
                Vec::new()
            }
            Err(source) => return Err(MountError::Partitions { disk: name, source }),
        };
        let holds = file_system(&disk, FileSystemLocation::WholeDisk).await;
        let holds = holds.map_err(|source| MountError::Partitions { disk: name.clone(), source })?;
        let separator = if name.ends_with(|last: char| last.is_ascii_digit()) { "p" } else { "" };
        let parts = found.into_iter().map(|partition| Node {
            name: format!("{name}{separator}{}", partition.number),
            disk: Arc::clone(&disk),
            bytes: partition.offset..partition.offset + partition.size_bytes,
            file_system: partition.file_system,
        });
        let parts: Vec<_> = parts.collect();
        nodes.push(Node { name, bytes: 0..disk.size_bytes(), disk, file_system: holds });
        nodes.extend(parts);
    }
    for (index, node) in nodes.iter().enumerate() {
        if nodes[..index].iter().any(|other| other.name == node.name) {
            return Err(MountError::Name { name: node.name.clone(), why: "it is given twice" });
        }
    }
    Ok(nodes)
}

fn check(name: &str) -> Result<(), MountError> {
    let why = match name {
        "" | "." | ".." => "it is no file name",
        _ if name.contains(['/', '\0']) => "it holds a slash or NUL",
        _ if name.len() > NAME_BYTES_MAX => "it is too long",
        _ => return Ok(()),
    };
    Err(MountError::Name { name: name.to_owned(), why })
}
