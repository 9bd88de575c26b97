//! An index shard: the directories of packs.
//!
//! ```text
//!   encrypted object of:  ( pack 16 | pack kind 1 | cipher 1 | epoch 4 | envelope 32 | directory as in the pack ) …
//! ```

use super::pack::{Directory, PackEncryptionInfo};
use crate::cursor::Cursor;
use crate::damage::Damage;

pub(crate) fn encode(directories: &[Directory]) -> Vec<u8> {
    let mut out = Vec::new();
    for directory in directories {
        directory.descriptor.write(&mut out);
        directory.write(&mut out);
    }
    out
}

pub(crate) fn decode(text: &[u8]) -> Result<Vec<Directory>, Damage> {
    let mut cursor = Cursor::new(text, "index shard");
    let mut directories = Vec::new();
    while !cursor.is_empty() {
        let head = PackEncryptionInfo::read(&mut cursor)?;
        directories.push(Directory::read(head, &mut cursor)?);
    }
    Ok(directories)
}
