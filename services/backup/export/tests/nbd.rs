//! A disk served over NBD, read by the tools of other projects.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use backup_export::nbd::*;
use backup_repository::nbd_wire::*;
use backup_repository::{DiskSource, NbdAddress, NbdExportSettings, NbdSource};

use self::support::client::{Client, request};
use self::support::*;

const SIZE: u64 = 64 * MIB + 512;

fn exports(disk: std::sync::Arc<dyn DiskSource>) -> Vec<Export> {
    vec![Export::read_only("vda", disk).unwrap()]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nbdcopy_and_qemu_img_read_is_the_disk_and_its_holes_are_seen() {
    if !have(&["nbdinfo", "nbdcopy", "qemu-img"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    sparse_image(&path("disk"), SIZE, &[(MIB, 3 * MIB), (40 * MIB, 40 * MIB + 65536), (SIZE - 512, SIZE)]);
    let began = Instant::now();
    let server = serve(folder.path(), exports(raw(&path("disk"))), ServerSettings::default()).await;
    assert!(began.elapsed() < Duration::from_millis(500), "ready in well under a second");
    let uri = server.uri("vda");

    let printed = run("nbdinfo", &["--map", &uri]).await;
    let map: Vec<Vec<&str>> = printed.lines().map(|line| line.split_whitespace().take(3).collect()).collect();
    let of =
        |kind: &str| map.iter().filter(|e| e[2] == kind).map(|e| e[1].parse::<u64>().unwrap()).sum::<u64>();
    // The last byte lies in a block of the file system that holds it.
    assert!((2 * MIB + 65536..2 * MIB + 65536 + 8192).contains(&of("0")), "{printed}");
    assert_eq!(of("0") + of("3"), SIZE, "{printed}");
    let info = run("nbdinfo", &[&uri]).await;
    for line in [
        "is_read_only: true",
        "can_multi_conn: true",
        "can_cache: true",
        "can_df: true",
        "base:allocation",
        "block_size_maximum: 33554432",
        "protocol: newstyle-fixed without TLS, using structured packets",
    ] {
        assert!(info.contains(line), "{line}: {info}");
    }
    assert!(run("nbdinfo", &["--list", &uri]).await.contains("export=\"vda\""));
    let list = run("qemu-img", &["info", &uri]).await;
    assert!(list.contains("virtual size: 64 MiB (67109376 bytes)"), "{list}");

    for (tool, arguments, copy) in [
        ("nbdcopy", vec![], "copied"),
        ("nbdcopy", vec!["--synchronous"], "slowly"),
        ("nbdcopy", vec!["--no-extents", "--request-size=33554432"], "whole"),
        ("qemu-img", vec!["convert", "-f", "raw", "-O", "raw"], "converted"),
    ] {
        let copy = path(copy);
        let arguments = [arguments, vec![uri.as_str(), copy.to_str().unwrap()]].concat();
        run(tool, &arguments).await;
        assert!(same_bytes(&copy, &path("disk")), "{tool} {arguments:?}");
    }
    server.stop().await;
    assert!(!path("nbd.sock").exists(), "the socket is removed with the server");
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_backup_can_read_what_is_served_over_tcp() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk");
    sparse_image(&image, SIZE, &[(5 * MIB, 21 * MIB)]);
    let listen = ListenAddress::Tcp("127.0.0.1:0".parse().unwrap());
    let server = NbdServer::start(&listen, exports(raw(&image)), ServerSettings::default()).await.unwrap();
    let ListenAddress::Tcp(address) = server.place() else { unreachable!() };
    let address = NbdAddress::Tcp { host: address.ip().to_string(), port: address.port() };
    let source = NbdSource::connect(&NbdExportSettings::new(address, "vda")).await.unwrap();
    let (file, extents) = (raw(&image), source.extents(0..SIZE).await.unwrap());
    let of_file = file.extents(0..SIZE).await.unwrap();
    assert_eq!(extents, of_file);
    let whole = source.read_at(0, SIZE as usize).await.unwrap();
    assert!(whole == std::fs::read(&image).unwrap());
    assert_eq!(server.connections(), 1);
    drop(source);
    eventually("the client goes", || server.connections() == 0).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_read_does_not_hold_back_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk");
    sparse_image(&image, SIZE, &[(0, 2 * MIB)]);
    let slow = Gated::new(raw(&image), 0..4096);
    let server = serve(folder.path(), exports(slow.clone()), ServerSettings::default()).await;
    let mut client = Client::at(&folder.path().join("nbd.sock"), "vda").await;
    client.send(&request(CMD_READ, 0, 1, 0, 512)).await;
    client.send(&request(CMD_READ, 0, 2, MIB, 512)).await;
    assert_eq!(client.simple().await, SimpleReply { errno: 0, cookie: 2 });
    let bytes = std::fs::read(&image).unwrap();
    assert!(client.bytes(512).await == bytes[MIB as usize..][..512]);
    slow.open();
    assert_eq!(client.simple().await, SimpleReply { errno: 0, cookie: 1 });
    assert!(client.bytes(512).await == bytes[..512]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_disk_is_not_written_and_a_refused_write_leaves_the_connection_usable() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk");
    sparse_image(&image, SIZE, &[(0, MIB)]);
    let server = serve(folder.path(), exports(raw(&image)), ServerSettings::default()).await;
    let mut client = Client::at(&folder.path().join("nbd.sock"), "vda").await;
    client.send(&[request(CMD_WRITE, 0, 7, 0, 100_000), vec![1; 100_000]].concat()).await;
    assert_eq!(client.simple().await, SimpleReply { errno: EPERM, cookie: 7 });
    client.send(&request(CMD_READ, 0, 8, SIZE - 511, 512)).await;
    assert_eq!(client.simple().await, SimpleReply { errno: EINVAL, cookie: 8 });
    client.send(&request(CMD_READ, 0, 9, SIZE - 512, 512)).await;
    assert_eq!(client.simple().await, SimpleReply { errno: 0, cookie: 9 });
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_source_is_an_error_of_that_read_and_not_of_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk");
    sparse_image(&image, SIZE, &[(0, MIB)]);
    let source = Gated::new(raw(&image), 0..0);
    let server = serve(folder.path(), exports(source.clone()), ServerSettings::default()).await;
    let mut client = Client::at(&folder.path().join("nbd.sock"), "vda").await;
    source.break_down(true);
    client.send(&request(CMD_READ, 0, 1, 0, 512)).await;
    assert_eq!(client.simple().await, SimpleReply { errno: EIO, cookie: 1 });
    source.break_down(false);
    client.send(&request(CMD_READ, 0, 2, 0, 512)).await;
    assert_eq!(client.simple().await, SimpleReply { errno: 0, cookie: 2 });
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_is_private_and_only_a_dead_one_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk");
    sparse_image(&image, MIB, &[]);
    let socket = folder.path().join("nbd.sock");
    let listen = ListenAddress::Unix(socket.clone());
    let start = || NbdServer::start(&listen, exports(raw(&image)), ServerSettings::default());

    // A listener that ended without removing its socket.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let server = start().await.unwrap();
    assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let taken = start().await.unwrap_err();
    assert!(matches!(taken, ListenError::InUse(_)), "{taken}");
    Client::at(&socket, "vda").await;
    drop(server);
    eventually("a dropped server removes its socket", || !socket.exists()).await;

    std::fs::write(&socket, "not a socket").unwrap();
    let file = start().await.unwrap_err();
    assert!(matches!(file, ListenError::NotASocket(_)), "{file}");
    assert_eq!(std::fs::read(&socket).unwrap(), b"not a socket");
    let any = ListenAddress::Tcp("0.0.0.0:0".parse().unwrap());
    let open = NbdServer::start(&any, exports(raw(&image)), ServerSettings::default()).await.unwrap_err();
    assert!(matches!(open, ListenError::NotLoopback(_)), "{open}");
}
