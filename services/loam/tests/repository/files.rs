//! Single files of a disk, without mounting it.

use std::fs;

use crate::place::{Place, have, text, tool};

#[test]
fn folders_are_listed_and_files_extracted() {
    if !have(&["mke2fs"]) {
        return;
    }
    let place = Place::with_repository();
    fs::create_dir_all(place.path("content/etc")).unwrap();
    fs::write(place.path("content/etc/hostname"), "loam\n").unwrap();
    tool(&place.path(""), "mke2fs", &["-q", "-t", "ext4", "-d", "content", "root.img", "16M"]);
    place.back_up("web", "root.img");

    let disks = place.ask("ls", &["latest"]);
    assert_eq!(text(&disks["disks"][0]["name"]), "vda");
    let partitions = place.ask("ls", &["latest", "--disk", "vda"]);
    assert_eq!(text(&partitions["partitions"][0]["holds"]), "ext2/3/4");
    let entries = place.ask("ls", &["latest", "--disk", "vda", "/etc"]);
    assert_eq!(
        (text(&entries["entries"][0]["name"]), text(&entries["entries"][0]["kind"])),
        ("hostname".into(), "file".into())
    );
    assert!(place.run("ls", &["latest", "--disk", "vda", "/etc"]).text().contains("hostname"));

    assert_eq!(place.run("extract", &["latest", "--disk", "vda", "/etc/hostname"]).text(), "loam\n");
    let done = place.ask("extract", &["latest", "--disk", "vda", "/etc/hostname", "--output", "hostname"]);
    assert_eq!(done["bytes"], 5);
    assert_eq!(fs::read(place.path("hostname")).unwrap(), b"loam\n");
    let again = place.run("extract", &["latest", "--disk", "vda", "/etc/hostname", "--output", "hostname"]);
    assert_eq!(again.code, Some(1), "a file that is there stays");
    let none = place.run("extract", &["latest", "--disk", "vda", "/etc/shadow", "--output", "shadow"]);
    assert!(none.code == Some(1) && !place.path("shadow").exists(), "{}", none.stderr);
    assert_eq!(place.run("ls", &["latest", "--disk", "vda", "--partition", "1"]).code, Some(1));
}

#[test]
fn a_disk_that_makes_its_reader_panic_is_an_ordinary_error_that_names_it() {
    if !have(&["mkfs.vfat", "mcopy"]) {
        return;
    }
    let place = Place::with_repository();
    fs::write(place.path("hostname"), "loam\n").unwrap();
    tool(&place.path(""), "mkfs.vfat", &["-C", "boot.img", "16384"]);
    tool(&place.path(""), "mcopy", &["-i", "boot.img", "hostname", "::/"]);
    place.back_up("sound", "boot.img");
    let mut image = fs::read(place.path("boot.img")).unwrap();
    let entry =
        image.windows(11).position(|name| name == b"HOSTNAME   ").expect("its entry in the root folder");
    // Clusters begin with number 2, so the file begins before the data of the file system.
    image[entry + 26..entry + 28].copy_from_slice(&1u16.to_le_bytes());
    fs::write(place.path("boot.img"), image).unwrap();
    place.back_up("damaged", "boot.img");

    let extract = |machine, arguments: &[&str]| {
        let which = ["latest", "--machine", machine, "--disk", "vda", "/hostname"];
        place.run("extract", &[&which, arguments].concat())
    };
    assert_eq!(extract("sound", &[]).text(), "loam\n");
    let before = fs::read_dir(place.path("")).unwrap().count();
    let failed = extract("damaged", &["--output", "found"]);
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    let said = "loam: disk vda: the file system is damaged or of an unknown kind: its reader gave up: ";
    assert!(failed.stderr.starts_with(said), "{}", failed.stderr);
    assert!(!failed.stderr.contains("panicked"), "{}", failed.stderr);
    assert_eq!(fs::read_dir(place.path("")).unwrap().count(), before, "nothing half written is left");
    let error = &extract("damaged", &["--output", "found", "--json"]).json_of(1)["error"];
    assert_eq!(text(&error["kind"]), "damaged_file_system");
    let listed = place.ask("ls", &["latest", "--machine", "damaged", "--disk", "vda", "/"]);
    assert_eq!(text(&listed["entries"][0]["name"]), "hostname", "what is sound can still be seen");
}
