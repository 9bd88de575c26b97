//! What is mounted where, from the kernel's table (`proc_pid_mountinfo(5)`).

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The source that our FUSE mounts name.
pub(super) const SOURCE: &str = "loam";

/// A line of the table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MountTableEntry {
    kind: Vec<u8>,
    source: Vec<u8>,
}

impl MountTableEntry {
    /// Whether disks were shown there by us, in this process or another.
    pub(super) fn is_ours(&self) -> bool {
        // `fusermount3` adds a subtype.
        self.kind.starts_with(b"fuse") && self.source == SOURCE.as_bytes()
    }
}

/// What is mounted on exactly this path, the last one on top.
pub(super) fn mounted_on(path: &Path) -> io::Result<Option<MountTableEntry>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(find(&table, path.as_os_str().as_bytes()))
}

fn find(table: &[u8], path: &[u8]) -> Option<MountTableEntry> {
    let mut found = None;
    for line in table.split(|byte| *byte == b'\n') {
        // ID, parent, device, root, mount point, options, optional fields, "-", type, source, options.
        let mut fields = line.split(|byte| *byte == b' ');
        let at = fields.nth(4).map(unescaped);
        let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
        if let (true, Some(kind), Some(source)) = (at.as_deref() == Some(path), rest.next(), rest.next()) {
            found = Some(MountTableEntry { kind: kind.to_owned(), source: unescaped(source) });
        }
    }
    found
}

/// Spaces and the like are written as a backslash and three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        rest = tail;
        let octal = tail.first_chunk::<3>().filter(|_| *first == b'\\');
        let code = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => bytes.push(*first),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mount_on_a_path_is_found_whatever_its_name() {
        let table = b"22 1 8:1 / / rw shared:1 - ext4 /dev/vda1 rw\n\
            40 22 7:0 / /mnt/a\\040b ro - ext4 /dev/loop0 ro\n\
            41 40 0:50 / /mnt/a\\040b ro,nosuid shared:9 master:3 - fuse loam ro\n\
            42 22 0:51 / /mnt/c ro - fuse.sshfs elsewhere ro\n\
            nonsense\n";
        let ours = |path: &[u8]| find(table, path).map(|mounted| mounted.is_ours());
        assert_eq!(ours(b"/mnt/a b"), Some(true));
        assert_eq!(ours(b"/mnt/c"), Some(false));
        assert_eq!(ours(b"/"), Some(false));
        assert_eq!(ours(b"/mnt"), None);
    }
}
