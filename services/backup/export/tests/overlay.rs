//! A disk of a backup is written, and the backup stays as it is.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backup_export::nbd::*;
use backup_export::overlay::*;
use backup_repository::DiskSource;
use backup_repository::nbd_wire::*;
use bytes::Bytes;
use rand::RngExt;

use self::support::client::{Client, request};
use self::support::*;

const SIZE: u64 = 32 * MIB + 1000;

fn settings(folder: &Path) -> OverlaySettings {
    OverlaySettings { path: folder.join("overlay"), id: "snapshot/vda".into() }
}

async fn open(folder: &Path, source: Arc<dyn DiskSource>) -> Arc<Overlay> {
    Overlay::open(&settings(folder), source).await.unwrap()
}

fn writable(overlay: &Arc<Overlay>) -> Vec<Export> {
    vec![Export::writable("vda", Arc::clone(overlay)).unwrap()]
}

/// A disk with data in some places, and its bytes.
fn image(folder: &Path) -> (Arc<dyn DiskSource>, Vec<u8>) {
    let path = folder.join("disk");
    sparse_image(
        &path,
        SIZE,
        &[(0, 3 * MIB), (9 * MIB + 4096, 9 * MIB + 8192), (20 * MIB, 22 * MIB), (SIZE - 700, SIZE)],
    );
    let bytes = std::fs::read(&path).unwrap();
    (raw(&path), bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_written_trimmed_zeroed_and_filled_the_overlay_reads_as_a_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (source, original) = image(folder.path());
    let mut model = original.clone();
    let mut random = seeded();
    for _ in 0..4 {
        let overlay = open(folder.path(), Arc::clone(&source)).await;
        // Steps of one block, so that it is in the middle of it all the while.
        let slowly = FillSettings { step_bytes: BLOCK_BYTES, steps_in_flight: 2, ..FillSettings::default() };
        let fill = overlay.fill(slowly);
        for _ in 0..60 {
            let offset = random.random_range(0..SIZE);
            let length = random.random_range(0..=(SIZE - offset).min(300_000));
            let range = offset as usize..(offset + length) as usize;
            match random.random_range(0..5) {
                0 => {
                    overlay.write_zeroes(offset, length, ZeroWriteMode::Sparse).await.unwrap();
                    model[range].fill(0);
                }
                1 => {
                    overlay.write_zeroes(offset, length, ZeroWriteMode::Allocated).await.unwrap();
                    model[range].fill(0);
                }
                2 => {
                    overlay.trim(offset, length).await.unwrap();
                    let blocks = range.start.next_multiple_of(65536)..range.end / 65536 * 65536;
                    let blocks = if range.end == SIZE as usize { blocks.start..range.end } else { blocks };
                    if blocks.start < blocks.end {
                        model[blocks].fill(0);
                    }
                }
                _ => {
                    random.fill(&mut model[range.clone()]);
                    overlay.write_at(offset, Bytes::copy_from_slice(&model[range])).await.unwrap();
                }
            }
            let offset = random.random_range(0..SIZE);
            let length = random.random_range(0..=(SIZE - offset).min(1_000_000)) as usize;
            let read = overlay.read_at(offset, length).await.unwrap();
            assert!(read == model[offset as usize..][..length], "{length} bytes at {offset}");
        }
        let extents = overlay.extents(0..SIZE).await.unwrap();
        assert_eq!(extents.iter().map(|extent| extent.length).sum::<u64>(), SIZE);
        let mut at = 0;
        for extent in extents {
            let bytes = &model[at..at + extent.length as usize];
            assert!(
                extent.kind == backup_repository::source::ExtentKind::Data || bytes.iter().all(|b| *b == 0)
            );
            at += bytes.len();
        }
        overlay.flush().await.unwrap();
        drop(fill);
    }
    let overlay = open(folder.path(), source).await;
    overlay.fill(FillSettings::default()).finished().await.unwrap();
    assert!(overlay.presence().is_complete());
    assert!(std::fs::read(overlay.path()).unwrap() == model, "the overlay is the whole disk now");
    assert!(std::fs::read(folder.path().join("disk")).unwrap() == original, "the source stays as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_qemu_io_writes_persists_over_a_restart_and_the_source_stays_untouched() {
    if !have(&["qemu-io", "qemu-img", "nbdinfo"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (source, original) = image(folder.path());
    {
        let overlay = open(folder.path(), Arc::clone(&source)).await;
        let server = serve(folder.path(), writable(&overlay), ServerSettings::default()).await;
        let uri = server.uri("vda");
        let info = run("nbdinfo", &[&uri]).await;
        for line in ["is_read_only: false", "can_fua: true", "can_trim: true", "can_zero: true"] {
            assert!(info.contains(line), "{line}: {info}");
        }
        run(
            "qemu-io",
            &[
                "-f",
                "raw",
                "-c",
                "write -P 7 100k 50k",
                "-c",
                "write -f -P 8 10M 1M",
                "-c",
                "write -z 1M 300k",
                "-c",
                "discard 20M 1M",
                "-c",
                "flush",
                "-c",
                "read -P 7 100k 50k",
                &uri,
            ],
        )
        .await;
        server.stop().await;
    }
    let overlay = open(folder.path(), source).await;
    let server = serve(folder.path(), writable(&overlay), ServerSettings::default()).await;
    let uri = server.uri("vda");
    run(
        "qemu-io",
        &[
            "-r",
            "-f",
            "raw",
            "-c",
            "read -P 7 100k 50k",
            "-c",
            "read -P 8 10M 1M",
            "-c",
            "read -P 0 1M 300k",
            "-c",
            "read -P 0 20M 1M",
            &uri,
        ],
    )
    .await;
    let copy = folder.path().join("copy");
    run("qemu-img", &["convert", "-f", "raw", "-O", "raw", &uri, copy.to_str().unwrap()]).await;
    let mut model = original.clone();
    model[100 * 1024..150 * 1024].fill(7);
    model[10 * 1024 * 1024..11 * 1024 * 1024].fill(8);
    model[1024 * 1024..1024 * 1024 + 300 * 1024].fill(0);
    model[20 * 1024 * 1024..21 * 1024 * 1024].fill(0);
    // QEMU fills the last sector up.
    assert!(std::fs::read(&copy).unwrap()[..SIZE as usize] == model);
    assert!(std::fs::read(folder.path().join("disk")).unwrap() == original);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_disk_a_foreign_file_and_a_second_process_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (source, _) = image(folder.path());
    let overlay = open(folder.path(), Arc::clone(&source)).await;
    let again = Overlay::open(&settings(folder.path()), Arc::clone(&source)).await.unwrap_err();
    assert!(matches!(again, OverlayError::InUse { .. }), "{again}");
    drop(overlay);

    let other = OverlaySettings { id: "snapshot/vdb".into(), ..settings(folder.path()) };
    let other = Overlay::open(&other, Arc::clone(&source)).await.unwrap_err();
    assert!(matches!(other, OverlayError::OtherDisk { .. }), "{other}");
    sparse_image(&folder.path().join("larger"), SIZE + 1, &[]);
    let larger =
        Overlay::open(&settings(folder.path()), raw(&folder.path().join("larger"))).await.unwrap_err();
    assert!(matches!(larger, OverlayError::OtherDisk { .. }), "{larger}");

    let foreign = OverlaySettings { path: folder.path().join("disk"), id: "x".into() };
    let foreign = Overlay::open(&foreign, Arc::clone(&source)).await.unwrap_err();
    assert!(matches!(foreign, OverlayError::NotAnOverlay { .. }), "{foreign}");
    std::fs::write(folder.path().join("note.map"), "no map").unwrap();
    let note = OverlaySettings { path: folder.path().join("note"), id: "x".into() };
    let note = Overlay::open(&note, source).await.unwrap_err();
    assert!(matches!(note, OverlayError::NotAnOverlay { .. }), "{note}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_data_file_is_not_taken_for_a_disk_of_zeros() {
    let folder = tempfile::tempdir().unwrap();
    let (source, _) = image(folder.path());
    let overlay = open(folder.path(), Arc::clone(&source)).await;
    overlay.write_at(0, Bytes::from_static(b"kept")).await.unwrap();
    overlay.flush().await.unwrap();
    drop(overlay);
    std::fs::remove_file(folder.path().join("overlay")).unwrap();
    Overlay::open(&settings(folder.path()), source).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_flushed_when_it_was_killed_is_old_or_new_and_what_was_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let (source, original) = image(folder.path());
    let overlay = open(folder.path(), Arc::clone(&source)).await;
    overlay.write_at(5 * MIB, vec![1; 200_000].into()).await.unwrap();
    overlay.flush().await.unwrap();
    overlay.write_at(7 * MIB, vec![2; 200_000].into()).await.unwrap();
    // What a killed process leaves: the files as they are now, without another sync.
    let after = tempfile::tempdir().unwrap();
    for name in ["overlay", "overlay.map"] {
        std::fs::copy(folder.path().join(name), after.path().join(name)).unwrap();
    }
    let overlay = open(after.path(), source).await;
    assert!(overlay.read_at(5 * MIB, 200_000).await.unwrap() == vec![1; 200_000]);
    let unflushed = overlay.read_at(7 * MIB, 200_000).await.unwrap();
    assert!(unflushed == original[7 * MIB as usize..][..200_000], "the map does not say that it is there");
    overlay.fill(FillSettings::default()).finished().await.unwrap();
    let mut model = original;
    model[5 * MIB as usize..][..200_000].fill(1);
    assert!(
        std::fs::read(overlay.path()).unwrap() == model,
        "what an unflushed write left behind is filled over"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_fill_the_source_is_not_read_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let (source, original) = image(folder.path());
    let source = Gated::new(source, 0..0);
    let overlay = open(folder.path(), source.clone()).await;
    let fill = overlay.fill(FillSettings::default());
    fill.finished().await.unwrap();
    assert!(overlay.presence().is_complete());
    let reads = source.reads();
    assert!(reads <= 4, "holes are not read: {reads}");
    source.break_down(true);
    assert!(overlay.read_at(0, SIZE as usize).await.unwrap() == original);
    assert_eq!(source.reads(), reads);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fill_waits_while_a_guest_waits_and_a_guest_never_waits_for_the_fill() {
    let folder = tempfile::tempdir().unwrap();
    let (source, _) = image(folder.path());
    // Reads of the guest at 2 MiB and of the fill at 20 MiB are held back.
    let for_guest = Gated::new(source, 2 * MIB..2 * MIB + 1);
    let both = Gated::new(for_guest.clone(), 20 * MIB..20 * MIB + 1);
    let overlay = open(folder.path(), both.clone()).await;
    let reader = Arc::clone(&overlay);
    let guest = tokio::spawn(async move { reader.read_at(2 * MIB, 4096).await });
    eventually("the guest waits for the source", || for_guest.reads() == 1).await;
    let forever = Duration::from_secs(3600);
    let fill = overlay.fill(FillSettings {
        guest_wait_timeout: forever,
        steps_in_flight: 1,
        ..FillSettings::default()
    });
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert_eq!(overlay.presence().present_blocks, 0, "nothing is filled meanwhile");
    for_guest.open();
    guest.await.unwrap().unwrap();
    eventually("the fill reads at 20 MiB", || overlay.presence().present_blocks >= 9 * 16).await;
    // The guest writes where the fill waits for the source, whole blocks and parts, and is not held up.
    overlay.write_at(21 * MIB, vec![5; 70_000].into()).await.unwrap();
    both.open();
    fill.finished().await.unwrap();
    assert!(
        overlay.read_at(21 * MIB, 70_000).await.unwrap() == vec![5; 70_000],
        "the fill does not write over it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_fails_for_a_while_is_filled_from_later_and_one_that_stays_broken_ends_the_fill() {
    let folder = tempfile::tempdir().unwrap();
    let (source, original) = image(folder.path());
    let source = Gated::new(source, 0..0);
    source.break_down(true);
    let overlay = open(folder.path(), source.clone()).await;
    let gives_up = FillSettings { failures_max: 1, ..FillSettings::default() };
    let error = overlay.fill(gives_up).finished().await.unwrap_err();
    assert_eq!(error.failed_attempts, 1);
    // A guest's write of a part of a block needs the source, too; a whole block does not.
    let mut client = {
        let server = serve(folder.path(), writable(&overlay), ServerSettings::default()).await;
        let mut client = Client::at(&folder.path().join("nbd.sock"), "vda").await;
        client.send(&[request(CMD_WRITE, 0, 1, 100, 100), vec![1; 100]].concat()).await;
        assert_eq!(client.simple().await, SimpleReply { errno: EIO, cookie: 1 });
        client.send(&[request(CMD_WRITE, 0, 2, 65536, 65536), vec![1; 65536]].concat()).await;
        assert_eq!(client.simple().await, SimpleReply { errno: 0, cookie: 2 });
        client.send(&request(CMD_READ, 0, 3, 65536, 65536)).await;
        assert_eq!(client.simple().await, SimpleReply { errno: 0, cookie: 3 });
        assert!(client.bytes(65536).await == [1; 65536]);
        server.stop().await;
        client
    };
    assert!(client.is_dropped().await);
    let fill = overlay.fill(FillSettings::default());
    eventually("it was tried", || source.reads() >= 3).await;
    source.break_down(false);
    fill.finished().await.unwrap();
    let mut model = original;
    model[65536..131_072].fill(1);
    assert!(std::fs::read(overlay.path()).unwrap() == model);
}
