//! Standard output that is closed, or full.

use std::fs::{self, File};
use std::process::Stdio;

use crate::clean::largest_file;
use crate::place::{Ended, MIB, Place};

/// A pipe whose reader is gone.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").expect("every Linux has it").into()
}

fn run(place: &Place, stdout: Stdio, command: &str, arguments: &[&str]) -> Ended {
    place
        .command(command, arguments)
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .expect("loam runs")
        .wait_with_output()
        .expect("it ends")
        .into()
}

#[test]
fn every_command_ends_quietly_and_well_when_nobody_reads_it() {
    let place = Place::with_repository();
    place.write_disk("disk", 8 * MIB, 51);
    place.write_secret("other", b"another horse\n");
    let id = place.back_up("web", "disk");
    for (command, arguments) in [
        ("info", &[][..]),
        ("snapshots", &[]),
        ("snapshots", &["--json"]),
        ("backup", &["--machine", "web", "--disk", "vda=disk"]),
        ("restore", &[&id, "--disk", "vda=back"]),
        ("ls", &[&id]),
        ("diff", &[&id, "latest"]),
        ("verify", &["--all"]),
        ("rebuild-index", &[]),
        ("hold", &[&id, "--reason", "for later"]),
        ("holds", &[]),
        ("release", &[&id]),
        ("forget", &["--keep-last", "5"]),
        ("collect", &[]),
        ("keys list", &[]),
        ("keys add", &["--new-passphrase-file", "other"]),
    ] {
        let ended = run(&place, closed(), command, arguments);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{command}");
    }
    assert_eq!(place.ask("info", &[])["snapshots"], 2, "the backup is stored");
}

#[test]
fn an_answer_that_cannot_be_written_is_reported_and_a_stored_backup_is_no_failure() {
    let place = Place::with_repository();
    place.write_disk("disk", 8 * MIB, 52);
    for (command, arguments, code) in [
        ("backup", &["--machine", "web", "--disk", "vda=disk"][..], 6),
        ("verify", &["--all"], 6),
        ("snapshots", &[], 1),
        ("info", &["--json"], 1),
    ] {
        let ended = run(&place, full(), command, arguments);
        assert!(ended.stderr.contains("writing to standard output: No space left"), "{}", ended.stderr);
        assert_eq!(ended.code, Some(code), "{command}");
    }
    assert_eq!(place.ask("info", &[])["snapshots"], 1);
}

#[test]
fn a_verdict_is_not_lost_when_nobody_reads_the_list() {
    let place = Place::with_repository();
    place.write_disk("disk", 8 * MIB, 53);
    place.back_up("web", "disk");
    let pack = largest_file(&place.path("store"));
    let mut content = fs::read(&pack).expect("read");
    content[1000] ^= 1;
    fs::remove_file(&pack).expect("removed");
    fs::write(&pack, content).expect("written");
    for stdout in [closed(), full()] {
        let ended = run(&place, stdout, "verify", &["--all"]);
        assert!(ended.stderr.contains("problems were found"), "{}", ended.stderr);
        assert_eq!(ended.code, Some(1));
    }
}

#[test]
fn a_disk_that_its_reader_did_not_take_whole_ends_quietly_and_not_as_if_it_had() {
    let place = Place::with_repository();
    place.write_disk("disk", 8 * MIB, 54);
    place.back_up("web", "disk");
    let ended = run(&place, closed(), "restore", &["latest", "--disk", "vda=-"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(141), ""));
    let ended = run(&place, full(), "restore", &["latest", "--disk", "vda=-"]);
    assert!(ended.code == Some(1) && ended.stderr.contains("No space left"), "{}", ended.stderr);
}
