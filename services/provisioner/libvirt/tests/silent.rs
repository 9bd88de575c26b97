//! A daemon that is missing, deaf or mute, played by a plain socket: no libvirtd is needed to break our line to it.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use provisioner_libvirt::{Connection, Deadlines, Error, Settings};

/// Opening waits 5 s by default; here a quarter of a second.
const IMPATIENT: f64 = 0.05;
/// Generous for a machine that is busy with other tests, and far below the default's 5 s.
const SOON: Duration = Duration::from_secs(3);

fn impatient(dir: &Path) -> Connection {
    Connection::new(Settings {
        socket: dir.join("daemon.sock"),
        deadlines: Deadlines::scaled(IMPATIENT),
        ..Settings::system(dir.join("run"))
    })
}

#[test]
fn a_missing_daemon_is_told_from_a_dead_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let missing = impatient(dir.path()).version();
    assert!(matches!(missing, Err(Error::SocketMissing { .. })), "{missing:?}");
    assert!(missing.expect_err("just seen").is_transient());

    drop(UnixListener::bind(dir.path().join("daemon.sock")).expect("a socket"));
    let dead = impatient(dir.path()).version();
    assert!(matches!(dead, Err(Error::SocketRefused { .. })), "{dead:?}");
}

#[test]
fn a_daemon_that_takes_the_call_and_says_nothing_costs_its_deadline_each_time() {
    let dir = tempfile::tempdir().expect("a folder");
    let _mute = UnixListener::bind(dir.path().join("daemon.sock")).expect("a socket");
    let mut connection = impatient(dir.path());
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
    let _mute = UnixListener::bind(&path).expect("a socket");
    // Somebody else's calls fill the queue that nobody serves.
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
    let answer = impatient(dir.path()).version();
    assert!(matches!(answer, Err(Error::TimedOut { .. })), "{answer:?}");
    assert!(begun.elapsed() < SOON, "took {:?}", begun.elapsed());
}

#[test]
fn a_daemon_that_hangs_up_is_a_lost_line() {
    let dir = tempfile::tempdir().expect("a folder");
    let rude = UnixListener::bind(dir.path().join("daemon.sock")).expect("a socket");
    let ending = std::thread::spawn(move || drop(rude.accept()));
    let answer = impatient(dir.path()).version();
    assert!(matches!(answer, Err(Error::Lost { .. })), "{answer:?}");
    ending.join().expect("it only hangs up");
}
