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
    let done = place.ask("extract", &["latest", "--disk", "vda", "/etc/hostname", "--to", "hostname"]);
    assert_eq!(done["bytes"], 5);
    assert_eq!(fs::read(place.path("hostname")).unwrap(), b"loam\n");
    let again = place.run("extract", &["latest", "--disk", "vda", "/etc/hostname", "--to", "hostname"]);
    assert_eq!(again.code, Some(1), "a file that is there stays");
    let none = place.run("extract", &["latest", "--disk", "vda", "/etc/shadow", "--to", "shadow"]);
    assert!(none.code == Some(1) && !place.path("shadow").exists(), "{}", none.stderr);
    assert_eq!(place.run("ls", &["latest", "--disk", "vda", "--partition", "1"]).code, Some(1));
}
