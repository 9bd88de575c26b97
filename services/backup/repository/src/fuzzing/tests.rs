//! The fuzzer's corpus, which every run of the tests replays.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::*;
use crate::compression::Compression;
use crate::format::roster;
use crate::keys::{KdfCost, KeyRoster, Secret};

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// What is real: the vectors of version 1, and what no vector holds.
fn seeds(target: &str) -> Vec<(&'static str, Vec<u8>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1/vectors.json");
    let vectors: BTreeMap<String, Value> =
        serde_json::from_slice(&fs::read(path).expect("there")).expect("the vectors are JSON");
    let bytes = |value: &Value| hex::decode(value.as_str().expect("text")).expect("digits");
    let of = |name: &str| bytes(&vectors[name]);
    let recipe = |name: &str| bytes(&vectors["recipes"][name]);
    let sealed = vectors.keys().find(|name| name.starts_with("sealed snapshot by aes")).expect("there");
    let keys = Keys::known();
    match target {
        "objects" => {
            let cost = KdfCost { memory_kib: 8, passes: 1, lanes: 1 };
            let words = Secret::passphrase("words").expect("a passphrase");
            let (roster, keys) =
                KeyRoster::first(crate::RepositoryId::known(), "first".into(), words, cost, 0).expect("made");
            let roster = roster::encode(&roster, &keys).expect("full");
            vec![
                ("config", of("config")),
                ("roster", roster),
                ("sealed", of(sealed)),
                ("pack", of("data pack by aes-256-gcm")),
                ("pack", of("meta pack by chacha20-poly1305")),
                ("config", of("config with aligned cuts")),
            ]
        }
        "texts" => {
            let mut directory = 1u32.to_le_bytes().to_vec();
            directory.extend_from_slice(&[[7; 32].as_slice(), &[0], &17u32.to_le_bytes(), &[0; 4]].concat());
            let blob =
                [1000u32.to_le_bytes().as_slice(), &blob::encode(&[7; 1000], Compression::default(), 0)]
                    .concat();
            vec![
                ("contents", of("snapshot by aes-256-gcm")),
                ("shard", of("index shard of it by aes-256-gcm")),
                ("leaf", recipe("leaf")),
                ("page", recipe("page")),
                ("disk", recipe("disk")),
                ("stream", recipe("stream")),
                ("directory", directory),
                ("packs", b"\x81\xa5packs\xc4\x10................".to_vec()),
                ("waits", b"\x81\xa6leases\x91\xba01K9NXQZ6R3W4V5T8Y2B7C1D0E".to_vec()),
                ("grant", keys.granted()),
                ("blob", blob),
            ]
        }
        _ => {
            let pin = [b"\x82\xa9authority\xc4\x20".as_slice(), &[1; 32], b"\xa6roster\x01"].concat();
            vec![("rows", index::rows_of_one(&keys)), ("pin", pin)]
        }
    }
}

#[test]
fn the_corpus_of_the_fuzzer_does_no_harm() {
    let write = std::env::var_os("LOAM_WRITE_SAMPLES").is_some();
    for (target, parsers) in [("objects", OBJECTS), ("texts", TEXTS), ("files", FILES)] {
        for (number, (parser, bytes)) in seeds(target).into_iter().enumerate() {
            let which = parsers.iter().position(|(name, _)| *name == parser).expect("it is one of them");
            let path = corpus(target).join(format!("{number:02}-{parser}"));
            if write && !path.exists() {
                fs::create_dir_all(corpus(target)).expect("made");
                fs::write(&path, [[which as u8].as_slice(), &bytes].concat()).expect("written");
            }
        }
        let mut inputs: Vec<_> = fs::read_dir(corpus(target))
            .expect("it is there")
            .map(|entry| entry.expect("read").path())
            .collect();
        inputs.sort();
        assert!(inputs.len() >= parsers.len(), "{target}: there is a real one for each parser");
        for path in inputs {
            println!("{}", path.display());
            run(parsers, &fs::read(&path).expect("read"));
        }
    }
}
