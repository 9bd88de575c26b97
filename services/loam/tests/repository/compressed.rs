//! What is stored, by the level that is said.

use crate::place::{MIB, Place};

#[test]
fn a_backup_stores_at_the_level_that_is_said_and_refuses_what_is_none() {
    let stored = |compression: &[&str]| {
        let place = Place::with_repository();
        // Lines of a log: alike, and nowhere the same, so that nothing depends on where a repository cuts.
        let line =
            |n: usize| format!("{n:08} user {:05} came from 10.88.0.{}\n", n * 7919 % 50_021, n * n % 250);
        let log: String = (0..2 * MIB / 40).map(line).collect();
        std::fs::write(place.path("disk.img"), log).unwrap();
        let arguments = [&["--machine", "web", "--disk", "vda=disk.img"], compression].concat();
        let answer = place.ask("backup", &arguments);
        answer["snapshot"]["stats"]["stored_bytes"].as_u64().unwrap_or_else(|| panic!("{answer}"))
    };
    let (none, fast, small) =
        (stored(&["--compression", "none"]), stored(&[]), stored(&["--compression", "19"]));
    println!("{none} > {fast} > {small}");
    assert!(none > fast && fast > small, "{none} {fast} {small}");

    let place = Place::with_repository();
    let refused = place.run("backup", &["--machine", "web", "--disk", "vda=disk.img", "--compression", "20"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("from 1 (fast) to 19 (small)"), "{}", refused.stderr);
}
