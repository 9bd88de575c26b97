//! An index shard: the directories of packs that were stored together.
//!
//! ```text
//!   sealed object of:  ( pack 16 | pack kind 1 | directory as in the pack ) …
//! ```

use super::Damage;
use super::bytes::Cursor;
use super::pack::{Directory, PackId, PackKind};

pub(crate) fn encode(directories: &[Directory]) -> Vec<u8> {
    let mut out = Vec::new();
    for directory in directories {
        out.extend_from_slice(directory.pack.as_bytes());
        out.push(directory.kind as u8);
        directory.write(&mut out);
    }
    out
}

pub(crate) fn decode(text: &[u8]) -> Result<Vec<Directory>, Damage> {
    let mut cursor = Cursor::new(text, "index shard");
    let mut directories = Vec::new();
    while !cursor.is_empty() {
        let pack = PackId::from(cursor.array::<16>()?);
        let kind =
            PackKind::from_byte(cursor.u8()?).ok_or_else(|| cursor.malformed("a pack's kind is unknown"))?;
        directories.push(Directory::read(pack, kind, &mut cursor)?);
    }
    Ok(directories)
}
