//! Clients that break the protocol, stop in the middle, or ask for too much.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_export::nbd::*;
use backup_repository::nbd_wire::*;
use proptest::prelude::*;
use rand::RngExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use self::support::client::*;
use self::support::*;

const SIZE: u64 = 64 * MIB;

fn short_timeouts() -> ServerSettings {
    ServerSettings {
        connections_max: 8,
        handshake_timeout: Duration::from_millis(300),
        request_timeout: Duration::from_millis(300),
        reply_timeout: Duration::from_millis(300),
        ..ServerSettings::default()
    }
}

async fn server(folder: &Path, settings: ServerSettings) -> (NbdServer, PathBuf) {
    let image = folder.join("disk");
    sparse_image(&image, SIZE, &[(0, SIZE)]);
    let exports = vec![Export::read_only("vda", raw(&image)).unwrap()];
    (serve(folder, exports, settings).await, folder.join("nbd.sock"))
}

/// A correct client's read.
async fn serves_others(socket: &Path) {
    let read = async {
        let mut client = Client::at(socket, "vda").await;
        client.send(&request(CMD_READ, 0, 1, MIB, 4096)).await;
        assert_eq!(client.simple().await, SimpleReply { errno: 0, cookie: 1 });
        client.bytes(4096).await;
    };
    tokio::time::timeout(Duration::from_secs(10), read).await.expect("a correct client is served in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_messages_end_their_connection_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (server, socket) = server(folder.path(), short_timeouts()).await;
    let cut = |option: u32, length: u32, data: &[u8]| {
        [&OptionHeader { option, length }.encode()[..], data].concat()
    };
    for bytes in [
        cut(OPT_GO, u32::MAX, b"endless"),
        cut(OPT_GO, 60_000, b"half"),
        cut(OPT_EXPORT_NAME, 4, b"none"),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        Vec::new(),
    ] {
        let mut client = Client::connect(&socket).await.unwrap();
        client.send(&bytes).await;
        assert!(client.is_dropped().await);
        serves_others(&socket).await;
    }
    for bytes in [
        vec![0x25; 28],
        request(CMD_READ, 0, 1, 0, 512)[..20].to_vec(),
        request(CMD_WRITE, 0, 1, 0, u32::MAX),
        [request(CMD_WRITE, 0, 1, 0, 4096), vec![1; 100]].concat(),
    ] {
        let mut client = Client::at(&socket, "vda").await;
        client.send(&bytes).await;
        assert!(client.is_dropped().await);
        serves_others(&socket).await;
    }
    eventually("all connections are closed", || server.connections() == 0).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_options_are_refused_and_the_handshake_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (server, socket) = server(folder.path(), ServerSettings::default()).await;
    let mut client = Client::connect(&socket).await.unwrap();
    let contexts =
        |export: &str, queries: &[&str]| ContextRequest { export, queries: queries.to_vec() }.encode();
    for (option, data, expected) in [
        (OPT_STARTTLS, vec![], REP_ERR_UNSUP),
        (99, vec![1; 1000], REP_ERR_UNSUP),
        (OPT_GO, vec![0xff; 10], REP_ERR_INVALID),
        (OPT_GO, go("vdz"), REP_ERR_UNKNOWN),
        (OPT_STRUCTURED_REPLY, vec![1], REP_ERR_INVALID),
        (OPT_SET_META_CONTEXT, contexts("vda", &[BASE_ALLOCATION]), REP_ERR_INVALID),
        (OPT_STRUCTURED_REPLY, vec![], REP_ACK),
        (OPT_SET_META_CONTEXT, contexts("vdz", &[BASE_ALLOCATION]), REP_ERR_UNKNOWN),
        (OPT_SET_META_CONTEXT, vec![0, 0, 0, 200, 1], REP_ERR_INVALID),
        (OPT_SET_META_CONTEXT, contexts("vda", &["qemu:dirty-bitmap:x", BASE_NAMESPACE]), REP_ACK),
        (OPT_LIST_META_CONTEXT, contexts("vda", &[]), REP_META_CONTEXT),
    ] {
        client.option(option, &data).await.unwrap();
        assert_eq!(client.option_reply().await.unwrap().0, expected, "option {option} {data:?}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_too_many_is_closed_and_a_silent_handshake_times_out() {
    let folder = tempfile::tempdir().unwrap();
    let (server, socket) = server(folder.path(), short_timeouts()).await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(UnixStream::connect(&socket).await.unwrap());
    }
    eventually("they are accepted", || server.connections() == 8).await;
    let mut one_more = UnixStream::connect(&socket).await.unwrap();
    assert!(matches!(one_more.read(&mut [0; 1]).await, Ok(0) | Err(_)));
    eventually("the silent ones are disconnected", || server.connections() == 0).await;
    serves_others(&socket).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_requests_much_and_reads_nothing_holds_bounded_memory() {
    let folder = tempfile::tempdir().unwrap();
    let settings = ServerSettings { reply_timeout: Duration::from_secs(3), ..short_timeouts() };
    let (server, socket) = server(folder.path(), settings).await;
    let before = resident_bytes();
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = Client::at(&socket, "vda").await;
        // 64 GiB of answers.
        for cookie in 0..2000 {
            let question = request(CMD_READ, 0, cookie, 0, 32 * MIB as u32);
            let asking = client.0.write_all(&question);
            if tokio::time::timeout(Duration::from_millis(20), asking).await.is_err() {
                break;
            }
        }
        clients.push(client);
        serves_others(&socket).await;
    }
    let held = resident_bytes().saturating_sub(before);
    println!("four clients hold {} MiB", held / MIB);
    assert!(held < 4 * 80 * MIB, "four connections hold {} MiB", held / MIB);
    eventually("a client that takes no replies is disconnected", || server.connections() == 0).await;
    serves_others(&socket).await;
    server.stop().await;
}

fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[tokio::test(flavor = "multi_thread")]
async fn random_bytes_at_any_point_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let (server, socket) = server(folder.path(), short_timeouts()).await;
    let mut random = seeded();
    for round in 0..150 {
        let mut bytes = vec![0; random.random_range(0..200)];
        random.fill(&mut bytes[..]);
        let mut client = match round % 3 {
            0 => Client(UnixStream::connect(&socket).await.unwrap()),
            1 => Client::connect(&socket).await.unwrap(),
            _ => Client::at(&socket, "vda").await,
        };
        if round % 2 == 0 && round % 3 == 1 {
            bytes.splice(0..0, IHAVEOPT.to_be_bytes());
        }
        if round % 2 == 0 && round % 3 == 2 {
            bytes.splice(0..0, REQUEST_MAGIC.to_be_bytes());
        }
        // The server may hang up while this is sent.
        let _ = client.0.write_all(&bytes).await;
        drop(client);
        if round % 30 == 0 {
            serves_others(&socket).await;
        }
    }
    eventually("all connections are closed", || server.connections() == 0).await;
    serves_others(&socket).await;
    server.stop().await;
}

/// What a client may send after having chosen an export.
fn any_requests() -> impl Strategy<Value = Vec<u8>> {
    let command = (0..10u16, 0..20u16, any::<u64>(), 0..2 * SIZE, 0..200_000u32)
        .prop_map(|(command, flags, cookie, offset, length)| request(command, flags, cookie, offset, length));
    let bytes = prop_oneof![8 => command, 1 => proptest::collection::vec(any::<u8>(), 0..64)];
    proptest::collection::vec(bytes, 0..12).prop_map(|bytes| bytes.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_requests_is_answered_or_ended(bytes in any_requests()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let image = folder.path().join("disk");
            sparse_image(&image, SIZE, &[(MIB, 2 * MIB)]);
            let exports = vec![Export::read_only("vda", raw(&image)).unwrap()];
            let server = serve(folder.path(), exports, short_timeouts()).await;
            let socket = folder.path().join("nbd.sock");
            let mut client = Client::at(&socket, "vda").await;
            let _ = client.0.write_all(&bytes).await;
            let _ = client.0.shutdown().await;
            let ended = tokio::time::timeout(Duration::from_secs(20), client.is_dropped()).await;
            assert!(ended.is_ok());
            serves_others(&socket).await;
            server.stop().await;
        });
    }
}
