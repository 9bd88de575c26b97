//! `loam repository mount`: all disks of a snapshot as files, and their file systems, until Ctrl-C.
//!
//! ```text
//!   DIR/vda, vda1, vda2            the disks and partitions (FUSE)
//!
//!   with --with-file-systems (root):
//!   DIR/disks/vda, vda1, vda2      the same
//!   DIR/vda1/etc/fstab             what the kernel finds in them
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_export::mount::{DisksMount, MountError};
use backup_repository::{DiskSource, RecordKind};
use clap::Args;
use serde::Serialize;

use super::access::Access;
use super::answer::Answer;
use super::errors;
use super::snapshot_arg::SnapshotArg;
use super::work::CommandContext;
use crate::cli::exit::CliError;
use crate::stdio;

const DISKS: &str = "disks";

#[derive(Debug, Args)]
pub(in crate::cli) struct MountArgs {
    #[command(flatten)]
    snapshot: SnapshotArg,
    /// Empty directory to mount on
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Also mount the file systems, read-only and by the kernel; needs root
    #[arg(long)]
    with_file_systems: bool,
    #[command(flatten)]
    access: Access,
}

#[derive(Serialize)]
struct Mounted {
    snapshot: String,
    disks: Vec<PathBuf>,
    file_systems: Vec<PathBuf>,
}

pub(super) async fn run(args: MountArgs, work: &CommandContext) -> Result<(), CliError> {
    let repository = args.access.open_to_read(work).await?;
    let snapshot = args.snapshot.find(&repository, work).await?;
    let mut disks: Vec<(String, Arc<dyn DiskSource>)> = Vec::new();
    for record in snapshot.contents.disks.iter().filter(|record| record.kind == RecordKind::Disk) {
        let disk = work.wait(repository.open_disk(&snapshot, &record.name)).await?;
        disks.push((record.name.clone(), Arc::new(disk)));
    }
    let mut folders = Folders::default();
    let on =
        if args.with_file_systems { folders.make(args.folder.join(DISKS))? } else { args.folder.clone() };
    let mut mount = DisksMount::start(&on, disks).await.map_err(errors::of)?;
    let names: Vec<String> = mount.names().map(str::to_owned).collect();
    let mut warnings = Vec::new();
    let mut file_systems = Vec::new();
    if args.with_file_systems {
        for name in &names {
            let target = folders.make(args.folder.join(name))?;
            match mount.attach(name, &target).await {
                Ok(()) => file_systems.push(target),
                // A disk with partitions, swap space and the like hold no files.
                Err(MountError::NotMountable { .. }) => folders.remove(&target),
                Err(error) => {
                    folders.remove(&target);
                    warnings.push(errors::message(&error));
                }
            }
        }
    }
    let mounted = Mounted {
        snapshot: snapshot.id.to_string(),
        disks: names.iter().map(|name| on.join(name)).collect(),
        file_systems,
    };
    let shown = Answer::new(mounted).warn(warnings).give(work.json, |mounted, text| {
        for path in mounted.disks.iter().chain(&mounted.file_systems) {
            text.line(format_args!("{}", path.display()));
        }
    });
    if !work.json {
        stdio::note("mounted until Ctrl-C");
    }
    let unmounted = mount.until(work.cancel.cancelled()).await;
    unmounted.map_err(|error| errors::of(error).after_answer())?;
    shown
}

/// Folders made to be mounted on; they are removed when the command ends.
#[derive(Default)]
struct Folders(Vec<PathBuf>);

impl Folders {
    fn make(&mut self, path: PathBuf) -> Result<PathBuf, CliError> {
        let made = std::fs::create_dir(&path);
        made.map_err(|error| errors::while_doing(format_args!("making {}", path.display()), error))?;
        self.0.push(path.clone());
        Ok(path)
    }

    fn remove(&mut self, path: &Path) {
        self.0.retain(|made| made != path);
        // What prevents its removal can be seen in the folder.
        let _ = std::fs::remove_dir(path);
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            // A folder that is still a mount point stays.
            let _ = std::fs::remove_dir(path);
        }
    }
}
