//! How disks are cut is said once, when the repository is made.

use crate::place::{MIB, Place};

#[test]
fn a_repository_is_made_with_either_chunker_and_brings_back_what_it_was_given() {
    for chunker in ["fastcdc", "aligned"] {
        let place = Place::empty();
        assert_eq!(place.ask("init", &["--chunker", chunker])["chunker"], chunker);
        let first = place.write_disk("disk", 12 * MIB, 1);
        let id = place.back_up("web", "disk");
        assert_eq!(place.ask("info", &[])["chunker"], chunker);
        place.ask("restore", &[&id, "--disk", "vda=restored"]);
        assert!(std::fs::read(place.path("restored")).unwrap() == first);
    }
    let place = Place::empty();
    let refused = place.run("init", &["--chunker", "rabin"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("fastcdc") && refused.stderr.contains("aligned"), "{}", refused.stderr);
    assert!(!place.path("store").exists());
}
