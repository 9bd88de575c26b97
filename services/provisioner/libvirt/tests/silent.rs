//! A daemon that is missing or does not answer, in the shape of a plain socket: no libvirtd is needed for it.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use provisioner_libvirt::{Connection, Deadlines, Error, Settings};

/// Opening waits 5 s by default; here a quarter of a second.
const SCALE: f64 = 0.05;
/// Generous for a machine that is busy with other tests, and far below the default's 5 s.
const SOON: Duration = Duration::from_secs(3);

fn connection_to(dir: &Path) -> Connection {
    Connection::new(Settings {
        socket: dir.join("daemon.sock"),
        deadlines: Deadlines::scaled(SCALE),
        ..Settings::system(dir.join("run"))
    })
}

#[test]
fn a_missing_daemon_and_a_dead_one_are_different_errors() {
    let dir = tempfile::tempdir().expect("a folder");
    let missing = connection_to(dir.path()).version();
    assert!(matches!(missing, Err(Error::SocketMissing { .. })), "{missing:?}");
    assert!(missing.expect_err("just seen").is_transient());

    drop(UnixListener::bind(dir.path().join("daemon.sock")).expect("a socket"));
    let dead = connection_to(dir.path()).version();
    assert!(matches!(dead, Err(Error::SocketRefused { .. })), "{dead:?}");
}

#[test]
fn a_daemon_that_accepts_and_does_not_answer_costs_its_deadline_each_time() {
    let dir = tempfile::tempdir().expect("a folder");
    let _silent = UnixListener::bind(dir.path().join("daemon.sock")).expect("a socket");
    let mut connection = connection_to(dir.path());
    for _ in 0..3 {
        let begun = Instant::now();
        let answer = connection.version();
        assert!(matches!(answer, Err(Error::TimedOut { .. })), "{answer:?}");
        assert!(begun.elapsed() < SOON, "took {:?}", begun.elapsed());
    }
    let left = std::fs::read_dir(dir.path().join("run")).expect("the runtime folder").count();
    assert_eq!(left, 0, "no socket of ours stays behind");
}

#[test]
fn a_daemon_whose_queue_is_full_costs_its_deadline() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("daemon.sock");
    let _silent = UnixListener::bind(&path).expect("a socket");
    // Other connections fill the queue that nobody accepts from.
    let mut waiting = Vec::new();
    loop {
        let caller =
            socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).expect("a socket");
        caller.set_nonblocking(true).expect("a mode");
        if caller.connect(&socket2::SockAddr::unix(&path).expect("a path")).is_err() {
            break;
        }
        waiting.push(caller);
    }
    let begun = Instant::now();
    let answer = connection_to(dir.path()).version();
    assert!(matches!(answer, Err(Error::TimedOut { .. })), "{answer:?}");
    assert!(begun.elapsed() < SOON, "took {:?}", begun.elapsed());
}

#[test]
fn a_daemon_that_closes_the_connection_is_a_lost_connection() {
    let dir = tempfile::tempdir().expect("a folder");
    let closing = UnixListener::bind(dir.path().join("daemon.sock")).expect("a socket");
    let ending = std::thread::spawn(move || drop(closing.accept()));
    let answer = connection_to(dir.path()).version();
    assert!(matches!(answer, Err(Error::ConnectionLost { .. })), "{answer:?}");
    ending.join().expect("it only accepts and closes");
}
