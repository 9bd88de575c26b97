//! The workspace as these tests read it: files on disk, and manifests as cargo resolves them.

use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{Metadata, MetadataCommand};

/// The root of the workspace.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lie in the workspace").to_path_buf()
}

/// The resolved workspace. Never from the network, which the tests do not have: dependencies of all platforms must have
/// been downloaded before.
pub(crate) fn metadata() -> Metadata {
    let read = MetadataCommand::new()
        .manifest_path(workspace().join("Cargo.toml"))
        .other_options(["--offline".to_string(), "--locked".to_string()])
        .exec();
    read.unwrap_or_else(|error| panic!("run `cargo fetch --locked` first, with a network: {error}"))
}

/// The files below `folder` that `wanted` accepts, in folders that `enter` accepts.
pub(crate) fn files_under(
    folder: PathBuf,
    enter: &dyn Fn(&Path) -> bool,
    wanted: &dyn Fn(&Path) -> bool,
) -> Vec<PathBuf> {
    let (mut todo, mut found) = (vec![folder], Vec::new());
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(&folder).expect("the workspace can be read") {
            let path = entry.expect("the workspace can be read").path();
            if path.is_dir() {
                if enter(&path) {
                    todo.push(path);
                }
            } else if wanted(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The text of a file of the workspace.
pub(crate) fn text_of(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Is this a folder that cargo writes into? Cargo marks them.
pub(crate) fn is_build_output(folder: &Path) -> bool {
    folder.join("CACHEDIR.TAG").exists()
}
