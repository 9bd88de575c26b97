//! A running domain's disks as they were at one instant, offered over NBD on a unix socket; and the checkpoints that
//! make the next such backup a small one.
//!
//! ```text
//!   begin_backup(spec) ---> QEMU: NBD server on spec.socket
//!        |                    export vda: blocks as of now; bitmap `loam-vda`: what changed since `since`
//!        |                    the guest's new writes first save the old block into the scratch file
//!        +-- checkpoint ----> from the same instant on, changes are recorded under this name for the next backup
//!   ... whoever reads connects to the socket ...
//!   end_backup ------------> server and scratch files are gone
//! ```
//!
//! Whoever reads commits first, and only then deletes the **previous** checkpoint; after a failure, the new one. The
//! folder of the socket and the scratch files must be QEMU's to write: see [`crate::qemu_user`].

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use uuid::Uuid;
use virt::domain::Domain;
use virt::error::{Error as LibvirtError, ErrorNumber};

use crate::connection::{Connection, EnsureOutcome};
use crate::deadline::CallClass;
use crate::error::Error;
use crate::raw;
use crate::xml::{Element, element};

/// Between two checks whether a backup has ended; its end takes QEMU some milliseconds.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A backup to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupSpec {
    /// Where the NBD server listens; at most 107 bytes of path.
    pub socket: PathBuf,
    /// The disks that take part; all others do not.
    pub disks: Vec<BackupDisk>,
    /// An existing checkpoint: each export then carries a bitmap of what changed since.
    pub since: Option<String>,
    /// A new checkpoint at the backup's instant. Only disks in qcow2 can have one.
    pub checkpoint: Option<String>,
}

/// One disk of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupDisk {
    /// The disk's target in its domain (`vda`); also the name of its export.
    pub target: String,
    /// Where old blocks go while the backup lasts. The file is made, and removed, by libvirt.
    pub scratch: PathBuf,
}

/// A backup that is running, whoever began it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningBackup {
    /// Where its NBD server listens.
    pub socket: PathBuf,
    /// The checkpoint whose successors' changes it shows.
    pub since: Option<String>,
    /// The disks exported there.
    pub exports: Vec<Export>,
}

/// One disk that is exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The disk's target in its domain.
    pub target: String,
    /// The NBD export's name.
    pub name: String,
    /// The NBD metadata context that says what changed; only in a backup `since` a checkpoint.
    pub dirty_bitmap_context_name: Option<String>,
    /// The file that old blocks go to.
    pub scratch: Option<PathBuf>,
}

/// An instant since which changed blocks are recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Unique in its domain.
    pub name: String,
    /// The checkpoint before it; none for the first.
    pub parent: Option<String>,
    /// When it was made, in seconds since 1970.
    pub created_unix_seconds: u64,
    /// libvirt's document, by which it could be recorded again on a host that lost it.
    pub xml: String,
}

/// What to delete of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CheckpointDeletion {
    /// Its record and its bitmaps; changes it alone knew pass to its neighbour.
    Full,
    /// Its record only, when its bitmaps are gone or broken.
    MetadataOnly,
}

impl BackupSpec {
    fn backup_document(&self) -> String {
        let disks = self.disks.iter().map(|disk| {
            let bitmap = self.since.as_ref().map(|_| bitmap_name(&disk.target));
            let mut described = element("disk")
                .with("name", &disk.target)
                .with("backup", "yes")
                .with("type", "file")
                .with("exportname", &disk.target);
            if let Some(bitmap) = bitmap {
                described = described.with("exportbitmap", bitmap);
            }
            described.child(element("scratch").with("file", disk.scratch.display()))
        });
        element("domainbackup")
            .with("mode", "pull")
            .children(self.since.as_ref().map(|name| element("incremental").holding(name)))
            .child(element("server").with("transport", "unix").with("socket", self.socket.display()))
            .child(element("disks").children(disks))
            .render()
    }

    fn checkpoint_document(&self) -> Option<String> {
        let name = self.checkpoint.as_ref()?;
        let disks = self
            .disks
            .iter()
            .map(|disk| element("disk").with("name", &disk.target).with("checkpoint", "bitmap"));
        Some(
            element("domaincheckpoint")
                .child(element("name").holding(name))
                .child(element("disks").children(disks))
                .render(),
        )
    }
}

fn bitmap_name(target: &str) -> String {
    format!("loam-{target}")
}

impl Connection {
    /// Begins a backup of a running domain.
    ///
    /// # Errors
    /// [`Error::NotFound`] without such a domain or checkpoint; [`Error::WrongState`] when it does not run;
    /// [`Error::BackupRunning`]; [`Error::Libvirt`] with QEMU's message, for instance when it may not write the
    /// socket's folder, or when the checkpoint's bitmap is broken (then a full backup is due).
    pub fn begin_backup(&mut self, uuid: Uuid, spec: &BackupSpec) -> Result<(), Error> {
        let attempt = format!("begin a backup of domain {uuid}");
        let (backup, checkpoint) = (spec.backup_document(), spec.checkpoint_document());
        let begun = self.with_domain(CallClass::Backup, &attempt, uuid, |_, domain| {
            // libvirt would wait half a minute for the other one before it reports it.
            if is_backed_up(domain)? {
                return Ok(false);
            }
            raw::backup_begin(domain, &backup, checkpoint.as_deref()).map(|()| true)
        })?;
        match begun {
            true => Ok(()),
            false => Err(Error::BackupRunning { attempt }),
        }
    }

    /// The backup that runs on a domain; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::NotFound`] without such a domain.
    pub fn running_backup(&mut self, uuid: Uuid) -> Result<Option<RunningBackup>, Error> {
        let attempt = format!("get the backup of domain {uuid}");
        let document = self.with_domain(CallClass::Query, &attempt, uuid, |_, domain| {
            match raw::backup_document(domain) {
                Err(error) if error.code().is(ErrorNumber::NoDomainBackup) => Ok(None),
                other => other.map(Some),
            }
        })?;
        document
            .map(|text| running_backup(&text).map_err(|reason| Error::MalformedReply { attempt, reason }))
            .transpose()
    }

    /// Ends the running backup and waits until its server and its scratch files are gone. No other kind of job is
    /// touched.
    ///
    /// # Errors
    /// [`Error::NotFound`] without such a domain; [`Error::TimedOut`] when the end does not come.
    pub fn end_backup(&mut self, uuid: Uuid) -> Result<EnsureOutcome, Error> {
        let attempt = format!("end the backup of domain {uuid}");
        self.with_domain(CallClass::Backup, &attempt, uuid, |_, domain| {
            if !is_backed_up(domain)? {
                return Ok(EnsureOutcome::AlreadyInPlace);
            }
            match raw::abort_job(domain) {
                // Another call ends it already; that takes a moment.
                Err(error) if error.code().is(ErrorNumber::OperationInvalid) => {}
                asked => asked?,
            }
            // The call's deadline ends this, too: on a cut connection the check is an error.
            while is_backed_up(domain)? {
                thread::sleep(POLL_INTERVAL);
            }
            Ok(EnsureOutcome::Changed)
        })
    }

    /// All checkpoints of a domain, parents before children.
    ///
    /// # Errors
    /// [`Error::NotFound`] without such a domain.
    pub fn checkpoints(&mut self, uuid: Uuid) -> Result<Vec<Checkpoint>, Error> {
        let attempt = format!("list the checkpoints of domain {uuid}");
        let documents = self
            .with_domain(CallClass::Query, &attempt, uuid, |_, domain| raw::checkpoint_documents(domain))?;
        documents
            .into_iter()
            .map(|document| {
                checkpoint(document)
                    .map_err(|reason| Error::MalformedReply { attempt: attempt.clone(), reason })
            })
            .collect()
    }

    /// Deletes a checkpoint. One that is gone already is fine.
    ///
    /// # Errors
    /// [`Error::NotFound`] without such a domain; [`Error::Libvirt`] when a bitmap is missing or broken:
    /// [`CheckpointDeletion::MetadataOnly`] helps then. Bitmaps are only deleted while the domain runs ([`Error::WrongState`]).
    pub fn delete_checkpoint(
        &mut self,
        uuid: Uuid,
        name: &str,
        part: CheckpointDeletion,
    ) -> Result<EnsureOutcome, Error> {
        let attempt = format!("delete checkpoint {name} of domain {uuid}");
        self.with_domain(CallClass::Backup, &attempt, uuid, |_, domain| {
            match raw::checkpoint_delete(domain, name, part == CheckpointDeletion::MetadataOnly) {
                Err(error) if error.code().is(ErrorNumber::NoDomainCheckpoint) => {
                    Ok(EnsureOutcome::AlreadyInPlace)
                }
                deleted => deleted.map(|()| EnsureOutcome::Changed),
            }
        })
    }
}

fn is_backed_up(domain: &Domain) -> Result<bool, LibvirtError> {
    match raw::backup_document(domain) {
        Err(error) if error.code().is(ErrorNumber::NoDomainBackup) => Ok(false),
        document => document.map(|_| true),
    }
}

fn running_backup(document: &str) -> Result<RunningBackup, String> {
    let backup = Element::read(document)?;
    let socket = backup.find(&["server"]).and_then(|server| server.attribute("socket"));
    let taking_part = |disk: &&Element| disk.attribute("backup") == Some("yes");
    let export = |disk: &Element| {
        let target = disk.attribute("name").ok_or("a disk has no name")?.to_owned();
        Ok(Export {
            name: disk.attribute("exportname").map_or_else(|| target.clone(), str::to_owned),
            dirty_bitmap_context_name: disk
                .attribute("exportbitmap")
                .map(|bitmap| format!("qemu:dirty-bitmap:{bitmap}")),
            scratch: disk.find(&["scratch"]).and_then(|scratch| scratch.attribute("file")).map(PathBuf::from),
            target,
        })
    };
    let disks = backup.find(&["disks"]).ok_or("a backup has no disks")?;
    Ok(RunningBackup {
        socket: socket.ok_or("the backup has no socket: it was not begun here")?.into(),
        since: backup.find(&["incremental"]).map(|name| name.text().to_owned()),
        exports: disks.all("disk").filter(taking_part).map(export).collect::<Result<_, String>>()?,
    })
}

fn checkpoint(document: String) -> Result<Checkpoint, String> {
    let read = Element::read(&document)?;
    let text = |path: &[&str]| read.find(path).map(|found| found.text().to_owned());
    Ok(Checkpoint {
        name: text(&["name"]).ok_or("a checkpoint has no name")?,
        parent: text(&["parent", "name"]),
        created_unix_seconds: text(&["creationTime"])
            .and_then(|seconds| seconds.parse().ok())
            .ok_or("a checkpoint has no creation time")?,
        xml: document,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_read_back_as_it_was_asked_for() {
        let spec = BackupSpec {
            socket: "/run/loam & co/b.sock".into(),
            disks: vec![BackupDisk { target: "vda".into(), scratch: "/scratch/vda".into() }],
            since: Some("one".into()),
            checkpoint: Some("two".into()),
        };
        let running = running_backup(&spec.backup_document()).expect("our own document");
        assert_eq!(running.socket, spec.socket);
        assert_eq!(running.since, spec.since);
        let export = Export {
            target: "vda".into(),
            name: "vda".into(),
            dirty_bitmap_context_name: Some("qemu:dirty-bitmap:loam-vda".into()),
            scratch: Some("/scratch/vda".into()),
        };
        assert_eq!(running.exports, [export]);
    }
}
