//! There and back: what was backed up comes back, to wherever it is wanted.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use crate::place::{Ended, MIB, Place, have, text, tool};

#[test]
fn a_disk_and_a_stream_come_back_as_they_were() {
    let place = Place::with_repository();
    let content = place.write_disk("disk", 16 * MIB, 1);
    fs::write(place.path("machine.toml"), "name = \"web\"\n").unwrap();
    let arguments = ["--machine", "web", "--disk", "vda=disk", "--stdin", "dump", "--tag", "first", "--json"];
    let mut backup = place.command("backup", &[&arguments[..], &["--definition", "machine.toml"]].concat());
    let mut child = backup.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"insert into t values (1);\n").unwrap();
    let done = Ended::from(child.wait_with_output().unwrap()).json_of(0);
    assert_eq!(done["outcome"], "ok");
    assert_eq!(done["snapshot"]["disks"][1]["kind"], "stream");

    let listed = place.ask("snapshots", &["--machine", "web", "--tag", "first"]);
    assert_eq!(listed["snapshots"][0]["id"], done["snapshot"]["id"]);
    assert_eq!(place.ask("snapshots", &["--tag", "other"])["snapshots"].as_array().unwrap().len(), 0);

    let all = ["latest", "--disk", "vda=back", "--disk", "dump=back.sql", "--definition", "back.toml"];
    let restored = place.ask("restore", &all);
    assert_eq!(restored["disks"][0]["size_bytes"], 16 * MIB);
    assert_eq!(fs::read(place.path("back")).unwrap(), content);
    assert!(fs::metadata(place.path("back")).unwrap().blocks() * 512 < 8 * MIB as u64, "holes stay holes");
    assert_eq!(fs::read(place.path("back.sql")).unwrap(), b"insert into t values (1);\n");
    assert_eq!(fs::read(place.path("back.toml")).unwrap(), b"name = \"web\"\n");
}

#[test]
fn a_backup_that_names_no_machine_is_of_this_host() {
    let place = Place::with_repository();
    place.write_disk("disk", 8 * MIB, 9);
    let done = place.ask("backup", &["--disk", "vda=disk"]);
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(done["snapshot"]["machine"], host.trim());
    assert_eq!(place.ask("snapshots", &["--machine", host.trim()])["snapshots"].as_array().unwrap().len(), 1);
}

#[test]
fn a_disk_goes_to_stdout_whole_or_in_part() {
    let place = Place::with_repository();
    let content = place.write_disk("disk", 8 * MIB, 2);
    let id = place.back_up("web", "disk");
    let whole = place.run("restore", &[&id, "--disk", "vda=-"]);
    assert_eq!((whole.code, whole.stdout == content), (Some(0), true), "{}", whole.stderr);
    let part = place.run("restore", &[&id[..8], "--disk", "vda=-", "--range", "1M..1500K"]);
    assert_eq!((part.code, part.stdout == content[MIB..1500 * 1024]), (Some(0), true), "{}", part.stderr);
    place.run("restore", &["latest", "--disk", "vda=end", "--range", "7M.."]).text();
    assert_eq!(fs::read(place.path("end")).unwrap(), content[7 * MIB..]);
    assert_eq!(place.run("restore", &[&id, "--disk", "vda=-", "--json"]).code, Some(2));
    assert_eq!(place.run("restore", &[&id, "--disk", "vda=x", "--range", "7M..9M"]).code, Some(2));
    assert!(!place.path("x").exists());
}

#[test]
fn a_restore_into_what_exists_writes_only_what_differs() {
    let place = Place::with_repository();
    let content = place.write_disk("disk", 16 * MIB, 3);
    place.back_up("web", "disk");
    let refused = place.run("restore", &["latest", "--disk", "vda=disk"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("--into-existing"), "{}", refused.stderr);
    let mut changed = content.clone();
    changed[2 * MIB..2 * MIB + 5].copy_from_slice(b"wrong");
    fs::write(place.path("disk"), &changed).unwrap();
    let done = place.ask("restore", &["latest", "--disk", "vda=disk", "--into-existing", "--read-back"]);
    assert_eq!(fs::read(place.path("disk")).unwrap(), content);
    let written = done["disks"][0]["written_bytes"].as_u64().unwrap();
    assert!(written > 0 && written < MIB as u64, "{done}");
}

#[test]
fn a_dry_run_shows_sizes_and_writes_nothing() {
    let place = Place::with_repository();
    place.write_disk("disk", 8 * MIB, 4);
    place.back_up("web", "disk");
    let shown = place.ask("restore", &["latest", "--disk", "vda=back", "--dry-run"]);
    assert_eq!((&shown["dry_run"], &shown["disks"][0]["used_bytes"]), (&true.into(), &(2 * MIB).into()));
    assert!(!place.path("back").exists());
    let none = place.run("restore", &["latest", "--disk", "vdz=back", "--dry-run"]);
    assert!(none.code == Some(1) && none.stderr.contains("no disk vdz"), "{}", none.stderr);
}

#[test]
fn qcow2_goes_in_and_comes_out() {
    if !have(&["qemu-img", "qemu-nbd"]) {
        return;
    }
    let place = Place::with_repository();
    let content = place.write_disk("disk", 8 * MIB, 5);
    let folder = place.path("");
    tool(&folder, "qemu-img", &["convert", "-f", "raw", "-O", "qcow2", "disk", "in.qcow2"]);
    place.back_up("web", "qcow2:in.qcow2");
    place.run("restore", &["latest", "--disk", "vda=out.qcow2", "--format", "qcow2"]).text();
    tool(&folder, "qemu-img", &["convert", "-f", "qcow2", "-O", "raw", "out.qcow2", "out"]);
    assert_eq!(fs::read(place.path("out")).unwrap(), content);
    tool(&folder, "qemu-img", &["create", "-f", "qcow2", "-F", "qcow2", "-b", "in.qcow2", "top.qcow2"]);
    let followed = ["--machine", "web", "--disk", "vda=top.qcow2"];
    let refused = place.run("backup", &followed);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    place.run("backup", &[&followed[..], &["--follow-references"]].concat()).text();
}

#[test]
fn what_looks_unusual_is_stored_and_warned_of() {
    let place = Place::with_repository();
    place.write_disk("disk", 8 * MIB, 6);
    let small = ["--machine", "web", "--disk", "vda=disk", "--min-size", "1G"];
    let warned = place.run("backup", &[&small[..], &["--json"]].concat()).json_of(6);
    assert_eq!(warned["outcome"], "ok_with_warnings");
    assert_eq!(warned["findings"][0]["finding"], "too_small");
    let shown = place.run("backup", &small);
    assert!(shown.code == Some(6) && shown.stderr.contains("warning: 2.0 MiB in use"), "{}", shown.stderr);
    assert_eq!(place.ask("info", &[])["snapshots"], 2);
}

#[test]
fn a_second_backup_stores_what_changed_and_diff_shows_where() {
    let place = Place::with_repository();
    let mut content = place.write_disk("disk", 16 * MIB, 7);
    let before = place.back_up("web", "disk");
    content[9 * MIB] ^= 1;
    fs::write(place.path("disk"), &content).unwrap();
    let after = place.back_up("web", "disk");
    let snapshots = place.ask("snapshots", &[]);
    assert_eq!(text(&snapshots["snapshots"][1]["parent"]), before);
    assert!(snapshots["snapshots"][1]["stats"]["new_bytes"].as_u64().unwrap() < MIB as u64);
    let diff = place.ask("diff", &[&before, &after, "--ranges"]);
    let segment = [8 * MIB, 12 * MIB];
    assert_eq!(diff["disks"][0]["ranges"][0], serde_json::json!(segment), "{diff}");
    assert_eq!(place.ask("diff", &[&after, &after])["disks"][0]["differing_bytes"], 0);
}
