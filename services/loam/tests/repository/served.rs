//! A disk served over NBD or mounted, until a signal ends it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::place::{MIB, Place, have, tool};

/// A command that lasts; killed if the test gives up on it.
struct Lasting(Child);

impl Lasting {
    /// Starts it and reads its first line.
    fn start(mut command: Command) -> (Lasting, String) {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("loam runs");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("it speaks");
        (Lasting(child), line.trim().to_owned())
    }

    fn end(mut self, signal: Signal) -> Option<i32> {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).expect("it lives");
        self.0.wait().expect("it ends").code()
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        // It has ended where all went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_disk_is_served_to_any_nbd_client_until_interrupted() {
    if !have(&["nbdcopy"]) {
        return;
    }
    let place = Place::with_repository();
    let content = place.write_disk("disk", 8 * MIB, 41);
    place.back_up("web", "disk");
    for listen in [&[][..], &["--listen", "127.0.0.1:0"], &["--socket", "nbd.sock"]] {
        let arguments = [&["latest", "--disk", "vda"], listen].concat();
        let (server, uri) = Lasting::start(place.command("serve", &arguments));
        assert!(uri.starts_with("nbd"), "{uri}");
        tool(&place.path(""), "nbdcopy", &[&uri, "copy"]);
        assert_eq!(server.end(Signal::SIGINT), Some(0));
        assert_eq!(fs::read(place.path("copy")).unwrap(), content);
        fs::remove_file(place.path("copy")).unwrap();
    }
    assert!(!place.path("nbd.sock").exists(), "the socket goes with its server");
}

#[test]
fn what_is_written_to_an_overlay_stays_there_and_not_in_the_backup() {
    if !have(&["nbdcopy"]) {
        return;
    }
    let place = Place::with_repository();
    let content = place.write_disk("disk", 8 * MIB, 42);
    place.back_up("web", "disk");
    let changed = place.write_disk("changed", 8 * MIB, 43);
    let arguments = ["latest", "--disk", "vda", "--overlay", "overlay", "--fill"];
    let (server, uri) = Lasting::start(place.command("serve", &arguments));
    tool(&place.path(""), "nbdcopy", &["--flush", "changed", &uri]);
    assert_eq!(server.end(Signal::SIGTERM), Some(0));
    assert_eq!(fs::read(place.path("overlay")).unwrap(), changed);
    place.run("restore", &["latest", "--disk", "vda=back"]).text();
    assert_eq!(fs::read(place.path("back")).unwrap(), content);
}

#[test]
fn disks_are_shown_as_files_until_interrupted() {
    // Root mounts by itself; others need a helper.
    let may_mount = nix::unistd::geteuid().is_root() || have(&["fusermount3"]);
    if !Path::new("/dev/fuse").exists() || !may_mount {
        println!("skipped: no FUSE");
        return;
    }
    let place = Place::with_repository();
    let content = place.write_disk("disk", 8 * MIB, 44);
    place.back_up("web", "disk");
    fs::create_dir(place.path("mnt")).unwrap();
    let (mount, shown) = Lasting::start(place.command("mount", &["latest", "mnt"]));
    assert_eq!(shown, "mnt/vda");
    let mut part = vec![0; MIB];
    fs::File::open(place.path("mnt/vda")).unwrap().read_exact_at(&mut part, MIB as u64).unwrap();
    assert_eq!(part, content[MIB..2 * MIB]);
    assert_eq!(mount.end(Signal::SIGINT), Some(0));
    assert_eq!(fs::read_dir(place.path("mnt")).unwrap().count(), 0);
}
