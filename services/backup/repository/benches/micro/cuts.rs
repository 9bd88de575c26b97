//! Where to cut: an experiment with the five guests.
//!
//! Guest file systems place data on a grid of 4 KiB. A chunker that cuts only there need not look at each byte: a
//! keyed hash of each block decides. Measured is how fast it cuts and what would be stored, beside FastCDC as the
//! engine uses it. All of them restart at segments of 4 MiB and leave holes out as the engine does.

use std::collections::HashSet;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, EncryptingKey, UnboundCipherKey};
use fastcdc::v2020::{FastCDC, Normalization};
use nix::sys::resource::UsageWho;

use crate::{cpu_seconds, guests};

const KIB: usize = 1024;
const BLOCK: usize = 4 * KIB;
const SEGMENT: usize = 4096 * KIB;
const HOLE_MIN: usize = 64 * KIB;
const MIN: usize = 16 * KIB;
const AVG: usize = 64 * KIB;
const MAX: usize = 256 * KIB;
const KEY: &[u8; 32] = b"the key of a benchmark is known.";
/// Chunks are stored raw where compression saves less than one part in this many, as the engine does.
const WORTH_ONE_PART_IN: usize = 25;

/// Cuts a stretch of data into lengths.
type Cutter = Box<dyn FnMut(&[u8], &mut Vec<usize>)>;

pub(crate) fn run() {
    let folder = tempfile::tempdir().unwrap();
    let guests = guests::make(folder.path());
    println!("\nCuts of 16/64/256 KiB in the five guests (files {})", guests.fingerprint);
    print!("{:<28} {:>6} {:>8} {:>7} {:>7}", "", "GB/s", "chunks", "unique", "stored");
    println!(
        "   MiB, and unique by guest:{}",
        guests.images.iter().map(|(name, _)| format!(" {name:>5}")).collect::<String>()
    );
    let cutters: [(&str, Cutter); 3] = [
        ("FastCDC 2020, each byte", Box::new(fastcdc)),
        ("4 KiB grid, keyed BLAKE3", Box::new(|data, cuts| on_grid(data, cuts, by_blake3))),
        ("4 KiB grid, GHASH then AES", by_ghash_and_aes()),
    ];
    for (name, mut cutter) in cutters {
        let seen = measure(&guests.images, &mut cutter);
        let mib = |bytes: usize| bytes as f64 / (1024.0 * 1024.0);
        let speed = seen.data_bytes as f64 / 1e9 / seen.cut_seconds;
        let unique: usize = seen.unique_bytes.iter().sum();
        print!(
            "{name:<28} {speed:>6.2} {:>8} {:>7.0} {:>7.0}",
            seen.chunks.len(),
            mib(unique),
            mib(seen.stored_bytes)
        );
        println!(
            "{:28}{}",
            "",
            seen.unique_bytes.iter().map(|&bytes| format!(" {:>5.0}", mib(bytes))).collect::<String>()
        );
    }
}

#[derive(Default)]
struct Seen {
    cut_seconds: f64,
    data_bytes: usize,
    chunks: HashSet<blake3::Hash>,
    /// Of each image what those before did not have.
    unique_bytes: Vec<usize>,
    stored_bytes: usize,
}

fn measure(images: &[(&str, PathBuf)], cutter: &mut Cutter) -> Seen {
    let mut seen = Seen::default();
    let mut zstd = zstd::bulk::Compressor::new(1).unwrap();
    let mut cuts = Vec::new();
    for (_, image) in images {
        let mut unique_bytes = 0;
        for_each_segment(image, |segment| {
            for stretch in stretches(segment) {
                let data = &segment[stretch];
                cuts.clear();
                let begun = cpu_seconds(UsageWho::RUSAGE_THREAD);
                cutter(data, &mut cuts);
                seen.cut_seconds += cpu_seconds(UsageWho::RUSAGE_THREAD) - begun;
                seen.data_bytes += data.len();
                assert_eq!(cuts.iter().sum::<usize>(), data.len(), "cuts cover what is cut");
                let mut rest = data;
                for &length in &cuts {
                    let chunk = rest.split_off(..length).unwrap();
                    if seen.chunks.insert(blake3::keyed_hash(KEY, chunk)) {
                        unique_bytes += length;
                        let packed = zstd.compress(chunk).unwrap().len();
                        let is_worth_it = packed + length / WORTH_ONE_PART_IN <= length;
                        seen.stored_bytes += if is_worth_it { packed } else { length };
                    }
                }
            }
        });
        seen.unique_bytes.push(unique_bytes);
    }
    seen
}

fn for_each_segment(image: &Path, mut look: impl FnMut(&[u8])) {
    let file = File::open(image).unwrap();
    let length = file.metadata().unwrap().len() as usize;
    let mut segment = vec![0; SEGMENT];
    for at in (0..length).step_by(SEGMENT) {
        let end = SEGMENT.min(length - at);
        file.read_exact_at(&mut segment[..end], at as u64).unwrap();
        look(&segment[..end]);
    }
}

/// What is left of a segment without its holes.
fn stretches(segment: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let (mut start, mut zeros) = (0, 0);
    let mut at = 0;
    for block in segment.chunks(BLOCK) {
        if block.iter().all(|&byte| byte == 0) {
            zeros += block.len();
        } else {
            if zeros >= HOLE_MIN {
                found.push(start..at - zeros);
                start = at;
            }
            zeros = 0;
        }
        at += block.len();
    }
    found.push(start..if zeros >= HOLE_MIN { at - zeros } else { at });
    found.retain(|stretch| !stretch.is_empty());
    found
}

fn fastcdc(data: &[u8], cuts: &mut Vec<usize>) {
    let chunker = FastCDC::with_level_and_seed(data, MIN, AVG, MAX, Normalization::Level1, 1);
    cuts.extend(chunker.map(|chunk| chunk.length));
}

/// Cuts after a block that its hash chooses: seldom below the average length, often above.
fn on_grid(data: &[u8], cuts: &mut Vec<usize>, mut hash: impl FnMut(&[u8]) -> u32) {
    let bits = (AVG / BLOCK).ilog2();
    let mut length = 0;
    for block in data.chunks(BLOCK) {
        length += block.len();
        let bits = if length < AVG { bits + 1 } else { bits - 1 };
        // Below the least length nothing is hashed.
        let is_chosen = length >= MIN && hash(block) >> (32 - bits) == 0;
        if is_chosen || length >= MAX {
            cuts.push(length);
            length = 0;
        }
    }
    if length > 0 {
        cuts.push(length);
    }
}

fn by_blake3(block: &[u8]) -> u32 {
    let hash = blake3::keyed_hash(KEY, block);
    u32::from_le_bytes(*hash.as_bytes().first_chunk().unwrap())
}

/// A universal hash under one key, then a block cipher under another: what is known to hide where chunks end. GHASH
/// comes as the tag of a message without text under a nonce that never changes, which is it plus a constant.
fn by_ghash_and_aes() -> Cutter {
    let ghash = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &KEY[..16]).unwrap());
    let aes = EncryptingKey::ecb(UnboundCipherKey::new(&AES_128, &KEY[16..]).unwrap()).unwrap();
    Box::new(move |data, cuts| {
        on_grid(data, cuts, |block| {
            let nonce = Nonce::assume_unique_for_key([0; 12]);
            let tag = ghash.seal_in_place_separate_tag(nonce, Aad::from(block), &mut []).unwrap();
            let mut hidden: [u8; 16] = tag.as_ref().try_into().unwrap();
            aes.encrypt(&mut hidden).unwrap();
            u32::from_le_bytes(*hidden.first_chunk().unwrap())
        });
    })
}
