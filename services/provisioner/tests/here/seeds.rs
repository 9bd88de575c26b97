//! A seed is what it was promised to be and a disk that can boot, or it is not added.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use contract::ByteCount;
use contract::provisioner::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{ANSWER, Running, definition, raw_image, seed_name, vm};

/// Far below the time for which a source that is away for a moment is waited for.
const AT_ONCE: Duration = Duration::from_secs(15);

fn add(from: &str, sha256: &str) -> AddSeed {
    AddSeed { name: seed_name(), from: from.into(), sha256: sha256.into(), host: None, operation_id: None }
}

fn add_file(path: &Path) -> AddSeed {
    add(&path.display().to_string(), &chassis::sha256_of(path).expect("hashed"))
}

#[actix::test]
async fn a_seed_is_what_it_was_promised_to_be_or_it_is_not_added() {
    let running = Running::start().await;
    let (path, sha256) = raw_image(running.folder.path());
    let relative = add("image.raw", &sha256);
    let refused = running.refused(relative).await;
    assert_eq!(refused, AddSeedRefused::NotASource("image.raw".into()));
    let nonsense = add(&path.display().to_string(), "abc");
    let refused = running.refused(nonsense).await;
    assert_eq!(refused, AddSeedRefused::NotADigest("abc".into()));

    let other = add(&path.display().to_string(), &"0".repeat(64));
    let reason = running.run_undone(other).await;
    assert!(reason.contains(&sha256), "{reason}");

    // An image that names a file of this host.
    let thief = running.folder.path().join("thief.qcow2");
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .args([&path, &thief])
        .status()
        .expect("qemu-img");
    assert!(made.success());
    let reason = running.run_undone(add_file(&thief)).await;
    assert!(reason.contains("backing file"), "{reason}");

    assert_eq!(running.bus.call(&ListSeeds {}, ANSWER).await.expect("a list"), []);
    let left: Vec<_> = std::fs::read_dir(running.simulated.state.join("seeds")).expect("a folder").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[actix::test]
async fn a_seed_in_use_stays() {
    let running = Running::start().await;
    running.add_seed().await;
    running.add_seed().await;
    let seeds = running.bus.call(&ListSeeds {}, ANSWER).await.expect("a list");
    assert_eq!(seeds.len(), 1, "the same image twice is one seed");
    assert_eq!(seeds[0].virtual_size, ByteCount::mib(16));
    running.create(definition("web")).await;
    let refused = running.refused(RemoveSeed { name: seed_name(), host: None }).await;
    assert_eq!(refused, RemoveSeedRefused::InUse { name: seed_name(), vms: vec![vm("web")] });
    running.run(RemoveVm { vm: vm("web"), operation_id: None }).await;
    running.bus.call(&RemoveSeed { name: seed_name(), host: None }, ANSWER).await.expect("nobody needs it");
    let left = std::fs::read_dir(running.simulated.state.join("seeds")).expect("a folder");
    assert_eq!(left.count(), 0);
}

fn qemu_img(arguments: &[&str], file: &Path, rest: &[&str]) {
    let status = Command::new("qemu-img").args(arguments).arg(file).args(rest).status();
    assert!(status.expect("qemu-img").success(), "{arguments:?} {file:?}");
}

#[actix::test]
async fn what_is_no_disk_that_a_vm_could_boot_from_is_refused_at_once_with_the_reason() {
    let running = Running::start().await;
    let folder = running.folder.path();
    let write = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, bytes).expect("written");
        path
    };
    let raw = raw_image(folder).0;
    let from_raw = |name: &str, format: &str, from: &Path| {
        let path = folder.join(name);
        qemu_img(&["convert", "-f", "raw", "-O", format, from.to_str().expect("plain")], &path, &[]);
        path
    };
    let huge = folder.join("huge.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", "cluster_size=2M"], &huge, &["100T"]);
    let damaged = from_raw("damaged.qcow2", "qcow2", &raw);
    let mut bytes = std::fs::read(&damaged).expect("read");
    // The refcount table, which a reader does not need.
    let table = u64::from_be_bytes(bytes[48..56].try_into().expect("eight bytes")) as usize;
    bytes[table..table + 8].fill(0);
    std::fs::write(&damaged, bytes).expect("written");
    let torn = from_raw("torn.qcow2", "qcow2", &raw);
    std::fs::File::options().write(true).open(&torn).expect("it is there").set_len(70_000).expect("cut");
    let data_file = folder.join("data.qcow2");
    let option = format!("data_file={}", folder.join("data.raw").display());
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", &option], &data_file, &["16M"]);
    let blank = write("blank.raw", &vec![0; 16 << 20]);

    let started = Instant::now();
    for (image, text) in [
        (write("empty", b""), "empty"),
        (write("noise", &[7; 1024]), "boot signature"),
        (write("page.html", b"<!DOCTYPE html>\n<html>not found</html>"), "HTML page"),
        (blank.clone(), "boot signature"),
        (from_raw("blank.qcow2", "qcow2", &blank), "boot signature"),
        (huge, "from 1 MiB to 64 TiB"),
        (from_raw("image.vmdk", "vmdk", &raw), "VMDK"),
        (from_raw("image.vdi", "vdi", &raw), "VDI"),
        (from_raw("image.vhdx", "vhdx", &raw), "VHDX"),
        (damaged, "damaged"),
        (torn, "damaged"),
        (data_file, "another file"),
        (folder.join("nowhere.raw"), "No such file"),
    ] {
        let asked = match image.exists() {
            true => add_file(&image),
            false => add(&image.display().to_string(), &"0".repeat(64)),
        };
        let reason = running.run_undone(asked).await;
        assert!(reason.contains(text), "{image:?}: {reason}");
    }
    let reason = running.run_undone(add("http://[::bad/image.raw", &"0".repeat(64))).await;
    assert!(reason.contains("http://[::bad"), "{reason}");
    assert!(started.elapsed() < AT_ONCE * 2, "none of them is tried again");
    let left = std::fs::read_dir(running.simulated.state.join("seeds")).expect("a folder");
    assert_eq!(left.count(), 0);
}

/// A web server with one file, everything else is not found. It sends at most `cut` bytes of body in each answer.
struct WebServer {
    address: std::net::SocketAddr,
    /// The first byte that was asked for, of each request.
    asked: Arc<Mutex<Vec<u64>>>,
}

async fn serve(body: Vec<u8>, cut: usize, ranges: bool) -> WebServer {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let asked: Arc<Mutex<Vec<u64>>> = Arc::default();
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        // Where it knows no ranges it is cut once only: else nobody could ever have all of it.
        let mut cuts = if ranges { usize::MAX } else { 1 };
        while let Ok((mut client, _)) = listener.accept().await {
            let mut head = [0; 2048];
            let read = client.read(&mut head).await.unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..read]).to_ascii_lowercase();
            if !head.starts_with("get /image.raw ") {
                let answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                // A client may close the connection early.
                let _ = client.write_all(answer).await;
                continue;
            }
            let range = head.lines().find_map(|line| line.strip_prefix("range: bytes="));
            let from: usize = range.map_or(0, |range| range.trim_end_matches('-').parse().expect("a number"));
            seen.lock().expect("no panic").push(from as u64);
            let from = if ranges { from } else { 0 };
            let (rest, total) = (&body[from..], body.len());
            let status = match from {
                0 => "200 OK".to_owned(),
                _ => format!("206 Partial Content\r\ncontent-range: bytes {from}-{}/{total}", total - 1),
            };
            let head = format!(
                "HTTP/1.1 {status}\r\netag: \"one\"\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                rest.len()
            );
            let _ = client.write_all(head.as_bytes()).await;
            let end = if cuts > 0 { rest.len().min(cut) } else { rest.len() };
            cuts = cuts.saturating_sub(1);
            let _ = client.write_all(&rest[..end]).await;
        }
    });
    WebServer { address, asked }
}

#[actix::test]
async fn a_seed_is_downloaded_from_a_url() {
    let running = Running::start().await;
    let (path, sha256) = raw_image(running.folder.path());
    let server = serve(std::fs::read(path).expect("read"), usize::MAX, true).await;
    let add = |file: &str| add(&format!("http://{}/{file}", server.address), &sha256.to_uppercase());
    let started = Instant::now();
    let reason = running.run_undone(add("gone.raw")).await;
    assert!(reason.contains("404") && started.elapsed() < AT_ONCE, "{reason}");
    running.run(add("image.raw")).await;
    running.create(definition("web")).await;
}

#[actix::test]
async fn a_download_that_is_cut_goes_on_where_it_was_cut() {
    let running = Running::start().await;
    let (path, sha256) = raw_image(running.folder.path());
    let body = std::fs::read(path).expect("read");
    let (total, cut) = (body.len() as u64, 6 << 20);
    let server = serve(body, cut, true).await;
    running.run(add(&format!("http://{}/image.raw", server.address), &sha256)).await;
    let asked = server.asked.lock().expect("no panic").clone();
    let expected: Vec<u64> = (0..total).step_by(cut).collect();
    assert_eq!(asked, expected, "no byte is fetched twice");
}

#[actix::test]
async fn a_download_from_a_server_without_ranges_begins_anew() {
    let running = Running::start().await;
    let (path, sha256) = raw_image(running.folder.path());
    let server = serve(std::fs::read(path).expect("read"), 6 << 20, false).await;
    running.run(add(&format!("http://{}/image.raw", server.address), &sha256)).await;
    assert_eq!(*server.asked.lock().expect("no panic"), [0, 6 << 20]);
}
