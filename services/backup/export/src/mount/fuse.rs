//! The folder as a FUSE file system (`linux/fuse.h`). Reads are answered as their bytes come.

use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use backup_repository::source::ExtentKind;
use backup_repository::{DiskSource, SourceError};
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, KernelConfig,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEntry, ReplyLseek, ReplyOpen, Request,
};
use nix::libc;
use tokio::runtime::Handle;

use super::nodes::Node;

/// Nothing here ever changes.
const TIME_TO_LIVE: Duration = Duration::from_secs(24 * 3600);
/// Reads ahead of its users that the kernel has in flight at most.
const BACKGROUND_MAX: u16 = 64;
/// How far the kernel reads ahead where a file is read from its beginning on: a distant store is slow with small reads.
const READ_AHEAD_BYTES: u32 = 1024 * 1024;
const BLOCK_BYTES: u32 = 4096;

pub(super) struct Folder {
    nodes: Arc<[Node]>,
    runtime: Handle,
    born: SystemTime,
    owner: (u32, u32),
}

impl Folder {
    /// Answers on the runtime at hand.
    pub(super) fn new(nodes: Arc<[Node]>) -> Folder {
        let owner = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        Folder { nodes, runtime: Handle::current(), born: SystemTime::now(), owner }
    }

    /// Inode 1 is the folder, 2 the first file.
    fn node(&self, inode: INodeNo) -> Option<&Node> {
        self.nodes.get(usize::try_from(inode.0.checked_sub(2)?).ok()?)
    }

    fn attributes(&self, inode: INodeNo) -> Option<FileAttr> {
        let node = self.node(inode);
        if node.is_none() && inode != INodeNo::ROOT {
            return None;
        }
        let size = node.map_or(0, Node::size_bytes);
        Some(FileAttr {
            ino: inode,
            size,
            // How much of a disk is stored is unknown. Less than its size makes copying tools look for holes.
            blocks: 0,
            atime: self.born,
            mtime: self.born,
            ctime: self.born,
            crtime: self.born,
            kind: if node.is_some() { FileType::RegularFile } else { FileType::Directory },
            perm: if node.is_some() { 0o444 } else { 0o555 },
            nlink: 1,
            uid: self.owner.0,
            gid: self.owner.1,
            rdev: 0,
            blksize: BLOCK_BYTES,
            flags: 0,
        })
    }
}

impl Filesystem for Folder {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // A kernel with a lower limit gets that.
        if let Err(most) = config.set_max_background(BACKGROUND_MAX) {
            let _ = config.set_max_background(most);
        }
        if let Err(most) = config.set_max_readahead(READ_AHEAD_BYTES) {
            let _ = config.set_max_readahead(most);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let index = self.nodes.iter().position(|node| node.name.as_str() == name);
        let inode = index.filter(|_| parent == INodeNo::ROOT).map(|index| INodeNo(index as u64 + 2));
        match inode.and_then(|inode| self.attributes(inode)) {
            Some(attributes) => reply.entry(&TIME_TO_LIVE, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode) {
            Some(attributes) => reply.attr(&TIME_TO_LIVE, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.node(inode) {
            Some(_) => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(node) = self.node(inode).cloned() else { return reply.error(Errno::ENOENT) };
        // The kernel bounds how many of these there are: its users wait, and its read-ahead is limited.
        self.runtime.spawn(async move {
            let start = node.bytes.start.saturating_add(offset).min(node.bytes.end);
            let length = (node.bytes.end - start).min(size.into()) as usize;
            if length == 0 {
                return reply.data(&[]);
            }
            match node.disk.read_at(start, length).await {
                Ok(bytes) if bytes.len() == length => reply.data(&bytes),
                Ok(_) => reply.error(Errno::EIO),
                Err(error) => {
                    log(&node, &error);
                    reply.error(Errno::EIO);
                }
            }
        });
    }

    fn lseek(&self, _: &Request, inode: INodeNo, _: FileHandle, from: i64, whence: i32, reply: ReplyLseek) {
        let wanted = match whence {
            libc::SEEK_DATA => ExtentKind::Data,
            libc::SEEK_HOLE => ExtentKind::Zero,
            _ => return reply.error(Errno::EINVAL),
        };
        let Some(node) = self.node(inode).cloned() else { return reply.error(Errno::ENOENT) };
        let Some(from) = u64::try_from(from).ok().filter(|from| *from < node.size_bytes()) else {
            return reply.error(Errno::ENXIO);
        };
        self.runtime.spawn(async move {
            let range = node.bytes.start + from..node.bytes.end;
            match find(&*node.disk, range, wanted).await {
                Ok(Some(at)) => reply.offset((at - node.bytes.start).cast_signed()),
                // The end counts as a hole.
                Ok(None) if wanted == ExtentKind::Zero => reply.offset(node.size_bytes().cast_signed()),
                Ok(None) => reply.error(Errno::ENXIO),
                Err(error) => {
                    log(&node, &error);
                    reply.error(Errno::EIO);
                }
            }
        });
    }

    fn readdir(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        if inode != INodeNo::ROOT {
            return reply.error(Errno::ENOTDIR);
        }
        let itself = [".", ".."].map(|name| (INodeNo::ROOT, FileType::Directory, name));
        let files = self.nodes.iter().zip(2..).map(|(node, inode)| {
            let name = node.name.as_str();
            (INodeNo(inode), FileType::RegularFile, name)
        });
        let entries = (1..).zip(itself.into_iter().chain(files));
        for (next, (inode, kind, name)) in entries.skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
            if reply.add(inode, next, kind, name) {
                break;
            }
        }
        reply.ok();
    }
}

fn log(node: &Node, error: &SourceError) {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    tracing::warn!(disk = node.name, %error, cause, "a read of a mounted disk failed");
}

/// Where the first extent of a kind begins. The map is requested in windows, so that it fits into memory.
async fn find(
    disk: &dyn DiskSource,
    range: Range<u64>,
    wanted: ExtentKind,
) -> Result<Option<u64>, SourceError> {
    const WINDOW_BYTES: u64 = 1 << 30;
    let mut at = range.start;
    while at < range.end {
        let end = range.end.min(at + WINDOW_BYTES);
        let mut offset = at;
        for extent in disk.extents(at..end).await? {
            if extent.kind == wanted && extent.length > 0 {
                return Ok(Some(offset));
            }
            offset += extent.length;
        }
        at = end;
    }
    Ok(None)
}
