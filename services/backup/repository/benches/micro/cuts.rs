//! Where to cut: the five guests in a repository of each kind.
//!
//! Prints what is stored, how many chunks name it, and what it takes to store it and to go through it once more. The
//! stores are in memory, with one worker.

use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;

use backup_repository::*;
use object_store::memory::InMemory;

use crate::{cpu_seconds, guests};

const MIB: f64 = 1024.0 * 1024.0;

pub(crate) async fn run() {
    let folder = tempfile::tempdir().unwrap();
    let guests = guests::make(folder.path());
    println!("\nThe five guests, cut anywhere and on a grid (files {})", guests.fingerprint);
    let heads = ["blobs", "unique MiB", "stored MiB", "CPU s", "again CPU s"];
    print!("{:<10}{}", "", heads.map(|head| format!("{head:>12}")).concat());
    let names: String = guests.images.iter().map(|(name, _)| format!("{name:>6}")).collect();
    println!("   unique MiB of {names}");
    for chunker in [Chunker::FastCdc, Chunker::AlignedCdc] {
        let settings = EngineSettings { workers: NonZero::<usize>::MIN, ..EngineSettings::default() };
        let (store, secret) = (Store::new(Arc::new(InMemory::new())), Secret::passphrase("bench").unwrap());
        let cost = KdfCost { memory_kib: 8, passes: 1, lanes: 1 };
        let repository = Repository::init_with(store, secret, cost, settings, chunker).await.unwrap();
        let begun = cpu_seconds();
        let mut unique = Vec::new();
        for (name, image) in &guests.images {
            unique.push(back_up(&repository, name, image).await as f64 / MIB);
        }
        let first = cpu_seconds();
        for (name, image) in &guests.images {
            assert_eq!(back_up(&repository, name, image).await, 0, "all of {name} is known");
        }
        let again = cpu_seconds() - first;
        let info = repository.info().await.unwrap();
        let cells = [
            format!("{}", info.blobs),
            format!("{:.0}", unique.iter().sum::<f64>()),
            format!("{:.0}", info.stored_bytes as f64 / MIB),
            format!("{:.2}", first - begun),
            format!("{again:.2}"),
        ];
        print!("{:<10}{}", format!("{chunker:?}"), cells.map(|cell| format!("{cell:>12}")).concat());
        println!("                 {}", unique.iter().map(|mib| format!("{mib:>6.0}")).collect::<String>());
    }
}

/// Backs an image up and gives the bytes that were new.
async fn back_up(repository: &Repository, machine: &str, image: &Path) -> u64 {
    let request = BackupRequest {
        machine: machine.into(),
        taken_at_unix_ms: 0,
        tags: Vec::new(),
        disks: vec![("vda".into(), Box::new(RawFile::open(image).unwrap()))],
        streams: Vec::new(),
        definition: Vec::new(),
        parent: None,
        consistency: Consistency::PoweredOff,
    };
    repository.backup(request, &Arc::default(), &Cancel::new()).await.unwrap().contents.stats.new_bytes
}
