//! Our engine as a program of its own, so that it is measured as the others are.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_repository::{
    BackupRequest, Cancel, Chunker, Consistency, EngineSettings, KdfCost, Progress, RawFile, Repository,
    Secret, Selector, StoreSettings,
};

/// The argument that makes this benchmark our engine.
pub(crate) const ARGUMENT: &str = "ours";

const DISK: &str = "vda";

/// `init STORE anywhere|aligned`, `backup STORE MACHINE IMAGE` or `restore STORE MACHINE IMAGE`.
pub(crate) async fn be_one(arguments: impl Iterator<Item = OsString>) {
    let arguments: Vec<String> = arguments.map(|argument| argument.into_string().unwrap()).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let secret = Secret::passphrase(super::engines::PASSPHRASE).unwrap();
    let settings = EngineSettings::default();
    let at = |folder: &str| StoreSettings::new(format!("file://{folder}").parse().unwrap());
    match arguments[..] {
        ["init", folder, cuts] => {
            let store = at(folder).open_for_init().unwrap();
            let chunker = if cuts == "aligned" { Chunker::AlignedCdc } else { Chunker::FastCdc };
            Repository::init_with(store, secret, KdfCost::default(), settings, chunker).await.unwrap();
        }
        ["backup", folder, machine, image] => {
            let store = at(folder).open().unwrap();
            let repository = Repository::open(store, secret, settings).await.unwrap();
            back_up(&repository, machine, Path::new(image)).await;
        }
        ["restore", folder, machine, image] => {
            let store = at(folder).open().unwrap();
            let repository = Repository::open(store, secret, settings).await.unwrap();
            restore(&repository, machine, &PathBuf::from(image)).await;
        }
        _ => panic!("unknown: {arguments:?}"),
    }
}

async fn back_up(repository: &Repository, machine: &str, image: &Path) {
    let request = BackupRequest {
        machine: machine.into(),
        taken_at_unix_ms: 0,
        tags: Vec::new(),
        disks: vec![(DISK.into(), Box::new(RawFile::open(image).unwrap()))],
        streams: Vec::new(),
        definition: Vec::new(),
        parent: None,
        consistency: Consistency::PoweredOff,
    };
    repository.backup(request, &Arc::new(Progress::new()), &Cancel::new()).await.unwrap();
}

async fn restore(repository: &Repository, machine: &str, image: &Path) {
    let snapshot = repository.find(&Selector::Latest { machine: machine.into() }).await.unwrap();
    repository
        .restore_disk(&snapshot, DISK, image, &Arc::new(Progress::new()), &Cancel::new())
        .await
        .unwrap();
}
