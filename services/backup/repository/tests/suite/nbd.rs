//! Reading disks over NBD, from real QEMU servers and from broken ones.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backup_repository::nbd_wire::{
    FLAG_FIXED_NEWSTYLE, FLAG_HAS_FLAGS, FLAG_NO_ZEROES, FLAG_READ_ONLY, Greeting, Info, OPT_GO,
    OPT_STRUCTURED_REPLY, REP_ACK, REP_ERR_UNSUP, REP_INFO, REPLY_FLAG_DONE, REPLY_TYPE_BLOCK_STATUS,
    REPLY_TYPE_NONE, REPLY_TYPE_OFFSET_DATA, REQUEST_MAGIC, ReplyChunkHeader, option_reply,
};
use backup_repository::source::{Change, ExtentKind};
use backup_repository::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::*;

async fn connect(settings: &NbdExportSettings) -> Box<dyn DiskSource> {
    Box::new(NbdSource::connect(settings).await.unwrap())
}

fn request_of(source: Box<dyn DiskSource>, parent: Option<SnapshotId>) -> BackupRequest {
    let disks = vec![("vda".to_owned(), source)];
    BackupRequest { disks, parent, ..request(&MemoryDisk::new(Vec::new())) }
}

/// Writes the parts of a disk that are not zero into a sparse file.
fn sparse_file(path: &Path, bytes: &[u8]) {
    let file = std::fs::File::create(path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (index, block) in bytes.chunks(4096).enumerate() {
        if block.iter().any(|&byte| byte != 0) {
            file.write_all_at(block, index as u64 * 4096).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_and_the_same_file_over_nbd_give_one_recipe() {
    qemu::must_be_there();
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.raw");
    let mut bytes = disk(&mut seeded(), 21 * MIB);
    bytes[8 * MIB..12 * MIB].fill(0);
    sparse_file(&image, &bytes);
    let served = qemu::Served::start(&image, "raw", None).await;

    let repository = new_repository(memory()).await;
    let by_nbd = back_up(&repository, request_of(connect(&served.settings()).await, None)).await;
    let by_file = back_up(&repository, request_of(Box::new(RawFile::open(&image).unwrap()), None)).await;
    assert_eq!(by_nbd.contents.disks, by_file.contents.disks);
    assert_eq!(by_file.contents.stats.new_bytes, 0);
    for stats in [by_nbd.contents.stats, by_file.contents.stats] {
        assert!(stats.zero_segments >= 1, "holes are not read");
        assert!(stats.read_bytes <= 17 * MIB as u64, "holes are not read");
    }
    assert!(restored(&repository, &by_nbd).await == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dirty_bitmap_of_qemu_leads_to_what_changed() {
    qemu::must_be_there();
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.qcow2");
    let path = image.to_str().unwrap();
    qemu::run("qemu-img", &["create", "-q", "-f", "qcow2", path, "64M"]);
    qemu::run("qemu-io", &["-c", "write -q -P 7 0 9M", "-c", "write -q -P 9 40M 3M", path]);
    let repository = new_repository(memory()).await;
    let parent = {
        let served = qemu::Served::start(&image, "qcow2", None).await;
        back_up(&repository, request_of(connect(&served.settings()).await, None)).await
    };
    assert!(parent.contents.stats.read_bytes <= 13 * MIB as u64, "only allocated extents are read");

    qemu::run("qemu-img", &["bitmap", "--add", path, "since"]);
    qemu::run("qemu-io", &["-c", "write -q -P 3 1M 64k", "-c", "discard 40M 3M", path]);
    let served = qemu::Served::start(&image, "qcow2", Some("since")).await;
    let source = NbdSource::connect(&served.settings().with_dirty_bitmap("since")).await.unwrap();
    assert!(source.has_dirty_bitmap());
    let extents = source.extents(0..source.size_bytes()).await.unwrap();
    assert_eq!(extents.iter().map(|e| e.length).sum::<u64>(), 64 * MIB as u64);
    assert!(extents.iter().any(|e| e.change == Change::Dirty && e.kind == ExtentKind::Zero), "{extents:?}");
    let changed = back_up(&repository, request_of(Box::new(source), Some(parent.id))).await;
    let whole = back_up(&repository, request_of(connect(&served.settings()).await, None)).await;
    assert_eq!(changed.contents.disks, whole.contents.disks);
    assert!(changed.contents.stats.read_bytes <= 4 * MIB as u64, "one segment holds the change");

    let expected = folder.path().join("expected.raw");
    qemu::run("qemu-img", &["convert", "-U", "-O", "raw", path, expected.to_str().unwrap()]);
    assert!(restored(&repository, &changed).await == std::fs::read(expected).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bitmap_or_export_that_is_not_there_is_refused() {
    qemu::must_be_there();
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.raw");
    sparse_file(&image, &[1; 4096]);
    let served = qemu::Served::start(&image, "raw", None).await;
    let no_bitmap = NbdSource::connect(&served.settings().with_dirty_bitmap("since")).await.unwrap_err();
    assert!(matches!(no_bitmap, SourceError::Refused { .. }), "{no_bitmap}");
    let other = NbdExportSettings { export: "vdz".into(), ..served.settings() };
    let no_export = NbdSource::connect(&other).await.unwrap_err();
    assert!(matches!(no_export, SourceError::Refused { .. }), "{no_export}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_or_dies_ends_the_backup_with_an_error_in_time() {
    qemu::must_be_there();
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.raw");
    sparse_file(&image, &[1; 64 * 1024]);
    let mut served = qemu::Served::start(&image, "raw", None).await;
    let timeout = Duration::from_millis(300);
    let settings = NbdExportSettings { request_timeout: timeout, ..served.settings() };
    let source = NbdSource::connect(&settings).await.unwrap();
    let second = NbdSource::connect(&served.settings()).await.unwrap();

    let pid = served.child.id().to_string();
    qemu::run("kill", &["-STOP", &pid]);
    let began = Instant::now();
    let hung = source.read_at(0, 4096).await.unwrap_err();
    assert!(matches!(hung, SourceError::TimedOut { .. }), "{hung}");
    assert!(began.elapsed() >= timeout);
    let after = source.read_at(0, 4096).await.unwrap_err();
    assert!(matches!(after, SourceError::Io { .. }), "a late answer is not taken for another: {after}");

    served.child.kill().unwrap();
    let repository = new_repository(memory()).await;
    let request = request_of(Box::new(second), None);
    let dead = repository.copy(request, &Arc::default(), &Cancel::new()).await.unwrap_err();
    assert!(matches!(dead, CopyDisksError::Source { .. }), "{dead}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_reads_only_whole_blocks_is_read_at_any_byte() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.raw");
    let bytes = disk(&mut seeded(), MIB);
    sparse_file(&image, &bytes);
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let mut server = std::process::Command::new("nbdkit")
        .args(["-f", "-i", "127.0.0.1", "-p", &port.to_string(), "--filter=blocksize-policy", "file"])
        .arg(&image)
        .args(["blocksize-minimum=4096", "blocksize-error-policy=error"])
        .spawn()
        .expect("nbdkit is installed");
    let settings: NbdExportSettings = format!("nbd://127.0.0.1:{port}/").parse().unwrap();
    let listens = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    eventually("nbdkit listens", listens).await;
    let source = NbdSource::connect(&settings).await.unwrap();
    for (at, length) in [(1, 1), (4095, 2), (0, MIB), (MIB - 1, 1), (123_457, 400_000)] {
        assert!(source.read_at(at as u64, length).await.unwrap() == bytes[at..at + length], "{at} {length}");
    }
    server.kill().unwrap();
    server.wait().unwrap();
}

/// A server that sends `first` when the connection is made and `then` when the first request comes.
async fn server_sending(first: Vec<u8>, then: Vec<u8>) -> NbdExportSettings {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&first).await.unwrap();
        let mut received = Vec::new();
        // Stays until the client has gone.
        while stream.read_buf(&mut received).await.is_ok_and(|bytes| bytes > 0) {
            if received.windows(4).any(|bytes| bytes == REQUEST_MAGIC.to_be_bytes()) {
                stream.write_all(&then).await.unwrap();
            }
        }
    });
    let address = NbdAddress::Tcp { host: "127.0.0.1".into(), port };
    NbdExportSettings {
        connect_timeout: Duration::from_millis(500),
        ..NbdExportSettings::new(address, "vda")
    }
}

fn greeting() -> Vec<u8> {
    Greeting { flags: FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES }.encode().to_vec()
}

/// A whole handshake without structured replies, for a disk of 1 MiB.
fn plain_handshake() -> Vec<u8> {
    let export = Info::Export { size_bytes: MIB as u64, flags: FLAG_HAS_FLAGS | FLAG_READ_ONLY };
    [
        greeting(),
        option_reply(OPT_STRUCTURED_REPLY, REP_ERR_UNSUP, b""),
        option_reply(OPT_GO, REP_INFO, &export.encode()),
        option_reply(OPT_GO, REP_ACK, b""),
    ]
    .concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_break_the_protocol_are_refused_in_time() {
    let mut endless = option_reply(OPT_STRUCTURED_REPLY, REP_ACK, b"");
    endless[16..].fill(0xff);
    for (bytes, expected) in [
        (b"SSH-2.0-OpenSSH_9.2 and more\r\n".to_vec(), "greet"),
        (greeting(), "no answer within"),
        ([greeting(), endless].concat(), "makes no sense"),
        ([greeting(), option_reply(OPT_GO, REP_ACK, b"")].concat(), "makes no sense"),
    ] {
        let settings = server_sending(bytes, Vec::new()).await;
        let error = NbdSource::connect(&settings).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_make_no_sense_are_errors() {
    let chunk = |kind: u16, cookie: u64, data: &[u8]| {
        let header = ReplyChunkHeader { flags: REPLY_FLAG_DONE, kind, cookie, length: data.len() as u32 };
        [&header.encode()[..], data].concat()
    };
    let outside = [&(1u64 << 40).to_be_bytes()[..], &[0; 16]].concat();
    for answer in [
        chunk(REPLY_TYPE_OFFSET_DATA, 77, &[0; 16]),
        chunk(REPLY_TYPE_OFFSET_DATA, 1, &outside),
        chunk(REPLY_TYPE_BLOCK_STATUS, 1, &[0; 12]),
        chunk(REPLY_TYPE_NONE, 1, &[]),
        b"neither simple nor structured".to_vec(),
    ] {
        let settings = server_sending(plain_handshake(), answer).await;
        let source = NbdSource::connect(&settings).await.unwrap();
        assert_eq!(source.size_bytes(), MIB as u64);
        let error = tokio::time::timeout(Duration::from_secs(20), source.read_at(0, 4096)).await.unwrap();
        assert!(error.is_err());
    }
}
