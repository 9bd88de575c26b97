//! A server with an overlay that is killed in the middle of writing, again and again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use backup_export::nbd::*;
use backup_export::overlay::*;
use backup_repository::DiskSource;
use backup_repository::nbd_wire::*;
use rand::RngExt;
use tokio::io::AsyncWriteExt;

use self::support::client::{Client, request};
use self::support::*;

const SIZE: u64 = 32 * MIB;
const FOLDER: &str = "LOAM_TEST_OVERLAY_FOLDER";

fn overlay_in(folder: &Path) -> OverlaySettings {
    OverlaySettings { path: folder.join("overlay"), id: "snapshot/vda".into() }
}

/// Not a promise but a process: the test below starts this binary again with a folder to serve.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_that_is_to_be_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let overlay = Overlay::open(&overlay_in(folder), raw(&folder.join("disk"))).await.unwrap();
    let _fill = overlay.fill(FillSettings { step_bytes: BLOCK_BYTES, ..FillSettings::default() });
    let exports = vec![Export::writable("vda", overlay).unwrap()];
    let _server = serve(folder, exports, ServerSettings::default()).await;
    // Killed long before; should the test die instead, this ends, too.
    tokio::time::sleep(Duration::from_secs(120)).await;
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(folder: &Path) -> Killed {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "the_server_that_is_to_be_killed"]).env(FOLDER, folder);
    Killed(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn whenever_the_server_is_killed_durable_writes_are_there_and_all_else_is_old_or_new() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk");
    sparse_image(&image, SIZE, &[(0, 10 * MIB), (20 * MIB, 21 * MIB)]);
    let original = std::fs::read(&image).unwrap();
    let socket = folder.path().join("nbd.sock");
    // For every sector what a reader may find there: what is durable, and what was written since.
    let mut durable = original.clone();
    let mut random = seeded();
    for round in 1..=6u8 {
        let server = start(folder.path());
        eventually("it serves", || std::os::unix::net::UnixStream::connect(&socket).is_ok()).await;
        let mut client = Client::at(&socket, "vda").await;
        let mut maybe = Vec::new();
        for cookie in 0..random.random_range(10..40) {
            let at = random.random_range(0..SIZE / 512 - 400) * 512;
            let bytes = vec![round * 16 + cookie as u8 % 16; random.random_range(1..400) * 512];
            let flags = if random.random_range(0..4) == 0 { CMD_FLAG_FUA } else { 0 };
            let message = [request(CMD_WRITE, flags, cookie, at, bytes.len() as u32), bytes.clone()].concat();
            client.send(&message).await;
            assert_eq!(client.simple().await, SimpleReply { errno: 0, cookie });
            maybe.push((at as usize, bytes));
            if flags == CMD_FLAG_FUA {
                // A flush of one is a flush of all that was answered before.
                for (at, bytes) in maybe.drain(..) {
                    durable[at..at + bytes.len()].copy_from_slice(&bytes);
                }
            }
        }
        // Some more, and not waiting for what becomes of them.
        for cookie in 100..110 {
            let at = random.random_range(0..SIZE / 512 - 400) * 512;
            let bytes = vec![round * 16 + 15; random.random_range(1..400) * 512];
            let message = [request(CMD_WRITE, 0, cookie, at, bytes.len() as u32), bytes.clone()].concat();
            client.0.write_all(&message).await.unwrap();
            maybe.push((at as usize, bytes));
        }
        drop(server);

        let overlay = Overlay::open(&overlay_in(folder.path()), raw(&image)).await.unwrap();
        let found = overlay.read_at(0, SIZE as usize).await.unwrap();
        let mut allowed: Vec<Vec<u8>> = vec![Vec::new(); (SIZE / 512) as usize];
        for (at, bytes) in &maybe {
            for sector in &mut allowed[at / 512..(at + bytes.len()) / 512] {
                sector.push(bytes[0]);
            }
        }
        for (sector, bytes) in found.chunks(512).enumerate() {
            let old = bytes == &durable[sector * 512..][..512];
            // Of a write that was never answered, a sector may be in part.
            let new = bytes
                .iter()
                .zip(&durable[sector * 512..])
                .all(|(byte, before)| byte == before || allowed[sector].contains(byte));
            assert!(old || new, "round {round}, sector {sector}");
        }
        // From here on what was found is what there is.
        durable.copy_from_slice(&found);
    }
    let overlay = Overlay::open(&overlay_in(folder.path()), raw(&image)).await.unwrap();
    overlay.fill(FillSettings::default()).finished().await.unwrap();
    assert!(std::fs::read(overlay.path()).unwrap() == durable);
    assert!(std::fs::read(&image).unwrap() == original, "the source stays as it was");
}
