//! A synthetic disk of 4 GiB, 512 MiB of it used, from a fixed seed, so that two runs compare.
#![allow(dead_code, unreachable_pub, reason = "each benchmark uses a part")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rand::{Rng, RngExt};

pub const MIB: u64 = 1024 * 1024;
pub const DISK_BYTES: u64 = 4096 * MIB;
pub const USED_BYTES: u64 = 512 * MIB;
pub const CHANGED_BYTES: u64 = 20 * MIB;

/// Writes the used part in stretches of 8 MiB spread over the disk: words, noise and repetitions.
pub fn make_disk(path: &Path, rng: &mut impl Rng) {
    let file = File::create(path).unwrap();
    file.set_len(DISK_BYTES).unwrap();
    let stretches = USED_BYTES / (8 * MIB);
    let mut stretch = vec![0; 8 * MIB as usize];
    for index in 0..stretches {
        match index % 4 {
            0 => rng.fill_bytes(&mut stretch),
            // The same again, elsewhere.
            1 => {}
            _ => words(rng, &mut stretch),
        }
        file.write_all_at(&stretch, index * (DISK_BYTES / stretches)).unwrap();
    }
}

/// Text of a thousand random words: it compresses about as well as programs do.
pub fn words(rng: &mut impl Rng, into: &mut [u8]) {
    let vocabulary: Vec<[u8; 7]> = (0..1000).map(|_| rng.random()).collect();
    for word in into.chunks_mut(7) {
        word.copy_from_slice(&vocabulary[rng.random_range(0..vocabulary.len())][..word.len()]);
    }
}

/// Changes pieces of 64 KiB all over the used part.
pub fn change_disk(path: &Path, rng: &mut impl Rng) {
    let file = File::options().write(true).open(path).unwrap();
    let mut piece = vec![0; 64 * 1024];
    for _ in 0..CHANGED_BYTES / piece.len() as u64 {
        rng.fill_bytes(&mut piece);
        let stretch = rng.random_range(0..USED_BYTES / (8 * MIB));
        let at = stretch * (DISK_BYTES / (USED_BYTES / (8 * MIB))) + rng.random_range(0..127) * 64 * 1024;
        file.write_all_at(&piece, at).unwrap();
    }
}
