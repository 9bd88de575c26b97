//! Five guests of 1 GiB, made of this machine's own programs and texts.
//!
//! ```text
//!   A1   410 MiB of files, a database of 64 MiB, a log of 4 MiB, on ext4
//!   A2   A1 a day later: 150 files deleted, 300 rewritten with 37 bytes inserted, 400 pages of 4 KiB of the database
//!        rewritten in place, 4 MiB more of log
//!   A3   A2 a day later
//!   B    the files of A1, copied in another order
//!   C    as B, in a partition that begins at 1 MiB, and 40 MiB of other files before
//! ```
//!
//! The order, the changes and the file systems' own ids and times come from fixed seeds: where the same packages are
//! installed, the same images come out. File systems are filled and changed by `debugfs`, so neither a kernel's mount
//! nor its choice of blocks is needed.
#![allow(dead_code, unreachable_pub, reason = "each benchmark uses a part")]

mod file_system;
mod tree;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt, SeedableRng};

use self::file_system::{BLOCK_BYTES, FileSystem};
use self::tree::Tree;

const MIB: usize = 1024 * 1024;
const TREE_BYTES: u64 = 410 * MIB as u64;
const OTHER_BYTES: u64 = 40 * MIB as u64;
const DATABASE_BYTES: usize = 64 * MIB;
const LOG_BYTES: usize = 4 * MIB;
const DELETED: usize = 150;
const REWRITTEN: usize = 300;
const INSERTED_BYTES: usize = 37;
const PAGES: usize = 400;
const PARTITION_START: u64 = MIB as u64;

/// The five images, and what files they were made of.
pub struct Guests {
    pub images: Vec<(&'static str, PathBuf)>,
    /// A word that is equal when the files were.
    pub fingerprint: String,
}

/// Makes them in a folder.
pub fn make(folder: &Path) -> Guests {
    let mut rng = StdRng::seed_from_u64(32);
    let tree = Tree::gather(TREE_BYTES, OTHER_BYTES);
    let image = |name: &str| folder.join(format!("{name}.raw"));
    let work = folder.join("work");
    std::fs::create_dir(&work).unwrap();
    let database = work.join("database");
    std::fs::write(&database, records(&mut rng, DATABASE_BYTES)).unwrap();

    let mut order: Vec<usize> = (0..tree.files.len()).collect();
    let mut guest = Guest { image: image("A1"), work: work.clone(), days: 1 };
    FileSystem::make(&guest.image, 0).copy_in(&tree, &order, &database);
    guest.log(&mut rng);
    let mut alive = order.clone();
    for day in ["A2", "A3"] {
        guest = guest.copied(image(day));
        guest.live_a_day(&tree, &mut alive, &mut rng);
    }

    order.shuffle(&mut rng);
    let guest = Guest { image: image("B"), work: work.clone(), days: 1 };
    FileSystem::make(&guest.image, 0).copy_in(&tree, &order, &database);
    guest.log(&mut rng);

    let file_system = FileSystem::make(&image("C"), PARTITION_START);
    let mut boot = [0; 512];
    rng.fill_bytes(&mut boot);
    File::options().write(true).open(image("C")).unwrap().write_all_at(&boot, 0).unwrap();
    file_system.copy_other(&tree);
    file_system.copy_in(&tree, &order, &database);

    std::fs::remove_dir_all(&work).unwrap();
    let images = ["A1", "A2", "A3", "B", "C"].map(|name| (name, image(name)));
    Guests { images: images.into(), fingerprint: tree.fingerprint }
}

/// Records as databases have them: much alike, with numbers that are not.
fn records(rng: &mut StdRng, bytes: usize) -> Vec<u8> {
    let mut records = Vec::with_capacity(bytes + 128);
    while records.len() < bytes {
        let (id, sum): (u64, u32) = (rng.random(), rng.random());
        let record =
            format!("{{\"id\":\"{id:016x}\",\"state\":\"delivered\",\"sum\":{sum},\"currency\":\"EUR\"}}\n");
        records.extend_from_slice(record.as_bytes());
    }
    records.truncate(bytes);
    records
}

/// A guest that lives on.
struct Guest {
    image: PathBuf,
    work: PathBuf,
    days: usize,
}

impl Guest {
    fn file_system(&self) -> FileSystem {
        FileSystem::at(&self.image, 0)
    }

    fn copied(&self, image: PathBuf) -> Guest {
        let done =
            std::process::Command::new("cp").arg("--sparse=always").args([&self.image, &image]).status();
        assert!(done.unwrap().success(), "could not copy an image");
        Guest { image, work: self.work.clone(), days: self.days + 1 }
    }

    /// Four more megabytes of log.
    fn log(&self, rng: &mut StdRng) {
        let log = self.work.join("log");
        std::fs::write(&log, records(rng, LOG_BYTES)).unwrap();
        self.file_system().write(&[(log, format!("/log.{}", self.days))]);
    }

    fn live_a_day(&self, tree: &Tree, alive: &mut Vec<usize>, rng: &mut StdRng) {
        alive.shuffle(rng);
        let deleted = alive.split_off(alive.len() - DELETED);
        self.file_system().remove(&deleted.iter().map(|&index| tree::name(index)).collect::<Vec<_>>());
        let rewritten: Vec<_> =
            alive[..REWRITTEN].iter().map(|&index| self.rewritten(tree, index, rng)).collect();
        self.file_system().remove(&rewritten.iter().map(|(_, name)| name.clone()).collect::<Vec<_>>());
        self.file_system().write(&rewritten);
        self.log(rng);
        self.rewrite_pages(rng);
    }

    /// A file with some bytes inserted, as an editor or a package's update leaves it.
    fn rewritten(&self, tree: &Tree, index: usize, rng: &mut StdRng) -> (PathBuf, String) {
        let path = self.work.join(index.to_string());
        // It may have been rewritten the day before.
        let source = if path.exists() { &path } else { &tree.files[index] };
        let mut content = std::fs::read(source).unwrap();
        let mut inserted = [0; INSERTED_BYTES];
        rng.fill_bytes(&mut inserted);
        let at = rng.random_range(0..=content.len());
        content.splice(at..at, inserted);
        std::fs::write(&path, content).unwrap();
        (path, tree::name(index))
    }

    /// Writes pages of the database where they lie, as a database does.
    fn rewrite_pages(&self, rng: &mut StdRng) {
        let mut pages: Vec<usize> = (0..DATABASE_BYTES / BLOCK_BYTES).collect();
        pages.shuffle(rng);
        pages.truncate(PAGES);
        let blocks = self.file_system().blocks_of("/database", &pages);
        let image = File::options().write(true).open(&self.image).unwrap();
        for block in blocks {
            image.write_all_at(&records(rng, BLOCK_BYTES), block * BLOCK_BYTES as u64).unwrap();
        }
    }
}
