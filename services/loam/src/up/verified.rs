//! Releases in a folder that another user can write: the upgrade service's, where it runs as a user of its own.
//!
//! `loam up` is root and starts executables as other users, so it trusts nothing that the upgrade service says of a
//! release. It reads manifest and signature beside the executable, checks the signature by the trusted keys, which are
//! root's, copies the executable into its own folder and compares the digest of the copy. Only the copy is ever run.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use contract::Service;
use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use sha2::{Digest, Sha256};
use upgrade_domain::{Release, TrustedKeys};

use crate::state::State;

const MANIFEST: &str = "release.toml";
const SIGNATURE: &str = "release.toml.minisig";
/// A manifest has a few lines, a signature four.
const TEXT_BYTES_MAX: u64 = 64 * 1024;
/// Our executables have some tens of megabytes.
const EXECUTABLE_BYTES_MAX: u64 = 512 * 1024 * 1024;
const PIECE_BYTES: usize = 256 * 1024;

/// Verifies the release that an executable lies beside, and copies it to where only root writes; the copy.
pub(super) fn take_over(state: &State, service: Service, executable: &Path) -> Result<PathBuf, String> {
    let folder = executable.parent().ok_or("it lies in no folder")?;
    let read = |name: &str| {
        read_plain(&folder.join(name)).map_err(|error| format!("{}: {error}", folder.join(name).display()))
    };
    let (manifest, signature) = (read(MANIFEST)?, read(SIGNATURE)?);
    let keys = trusted_keys(&state.trusted_keys())?;
    keys.verify(&manifest, &String::from_utf8_lossy(&signature)).map_err(|refused| refused.to_string())?;
    let release = Release::read(&manifest).map_err(|refused| refused.to_string())?;
    if release.service() != service {
        return Err(format!("it is a release of {}", release.service()));
    }
    let place = state.programs_of(service).join(release.build());
    let copy = place.join(format!("loam-{service}"));
    if chassis::sha256_of(&copy).is_ok_and(|digest| release.check(&digest).is_ok()) {
        return Ok(copy);
    }
    let failed = |error: io::Error| format!("copying it to {}: {error}", place.display());
    std::fs::create_dir_all(&place).map_err(failed)?;
    let draft = place.join(".new");
    let digest = copy_plain(executable, &draft).map_err(failed)?;
    if let Err(altered) = release.check(&digest) {
        std::fs::remove_file(&draft).map_err(failed)?;
        return Err(altered.to_string());
    }
    std::fs::rename(&draft, &copy).and_then(|()| File::open(&place)?.sync_all()).map_err(failed)?;
    Ok(copy)
}

/// Removes the copies of a service that none of these executables is.
pub(super) fn keep_only(state: &State, service: Service, executables: &[PathBuf]) -> io::Result<()> {
    for entry in std::fs::read_dir(state.programs_of(service))? {
        let build = entry?.path();
        if build.is_dir() && !executables.iter().any(|kept| kept.starts_with(&build)) {
            std::fs::remove_dir_all(&build)?;
        }
    }
    Ok(())
}

/// Every `*.pub` in the folder. One that others can write is an error: then it is not known whom to trust.
fn trusted_keys(folder: &Path) -> Result<TrustedKeys, String> {
    let mut keys = TrustedKeys::default();
    chassis::refuse_if_others_can_write(folder).map_err(|error| error.to_string())?;
    let failed = |error: io::Error| format!("{}: {error}", folder.display());
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "pub") {
            chassis::refuse_if_others_can_write(&path).map_err(|error| error.to_string())?;
            let text = std::fs::read_to_string(&path).map_err(failed)?;
            keys.trust(&text).map_err(|why| format!("{} is not a minisign key: {why}", path.display()))?;
        }
    }
    Ok(keys)
}

/// Opens a plain file of bounded size: no symbolic link, no pipe on which we would wait for ever.
fn open_plain(path: &Path, bytes_max: u64) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() || about.len() > bytes_max {
        return Err(io::Error::other(format!("it is no plain file of at most {bytes_max} bytes")));
    }
    Ok(file)
}

fn read_plain(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_plain(path, TEXT_BYTES_MAX)?.take(TEXT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Copies an executable; the SHA-256 of what was written.
fn copy_plain(from: &Path, to: &Path) -> io::Result<String> {
    let mut source = open_plain(from, EXECUTABLE_BYTES_MAX)?.take(EXECUTABLE_BYTES_MAX);
    let mut copy = OpenOptions::new().write(true).create(true).truncate(true).mode(0o755).open(to)?;
    copy.set_permissions(Permissions::from_mode(0o755))?;
    let (mut hasher, mut piece) = (Sha256::new(), vec![0; PIECE_BYTES]);
    loop {
        match source.read(&mut piece)? {
            0 => break,
            count => {
                hasher.update(&piece[..count]);
                copy.write_all(&piece[..count])?;
            }
        }
    }
    copy.sync_all()?;
    Ok(hex::encode(hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::os::unix::fs::symlink;

    use minisign::KeyPair;

    use super::*;

    const PROXY: Service = Service::Proxy;

    struct Host {
        folder: tempfile::TempDir,
        state: State,
        key: KeyPair,
        executable: PathBuf,
    }

    fn host() -> Host {
        let folder = tempfile::tempdir().expect("a folder");
        let state = State::at(folder.path().join("state"));
        state.prepare().expect("made");
        let key = KeyPair::generate_unencrypted_keypair().expect("made");
        let public = key.pk.to_box().expect("boxed").into_string();
        std::fs::write(state.trusted_keys().join("ours.pub"), public).expect("written");
        let place = state.releases().join("proxy/0123");
        std::fs::create_dir_all(&place).expect("made");
        let host = Host { folder, state, key, executable: place.join("loam-proxy") };
        host.publish(&host.key, "proxy", "an executable");
        host
    }

    impl Host {
        /// Writes a release that is signed by a key.
        fn publish(&self, key: &KeyPair, service: &str, content: &str) {
            std::fs::write(&self.executable, content).expect("written");
            let digest = hex::encode(Sha256::digest(content));
            let manifest = format!(
                "service = {service:?}\nversion = \"1.0.0\"\nfile = \"loam-proxy\"\nsha256 = {digest:?}\n\
                 made = \"2026-05-01T00:00:00Z\"\n"
            );
            let signature =
                minisign::sign(None, &key.sk, Cursor::new(&manifest), None, None).expect("signed");
            std::fs::write(self.beside(MANIFEST), manifest).expect("written");
            std::fs::write(self.beside(SIGNATURE), signature.into_string()).expect("written");
        }

        fn beside(&self, name: &str) -> PathBuf {
            self.executable.with_file_name(name)
        }

        fn take_over(&self) -> Result<PathBuf, String> {
            take_over(&self.state, PROXY, &self.executable)
        }

        fn refused(&self, why: &str) {
            let refused = self.take_over().expect_err(why);
            assert!(refused.contains(why), "{refused}");
            let copies = std::fs::read_dir(self.state.programs_of(PROXY)).into_iter().flatten().flatten();
            for build in copies {
                assert_eq!(std::fs::read_dir(build.path()).expect("a folder").count(), 0, "nothing is left");
            }
        }
    }

    #[test]
    fn what_runs_is_a_copy_that_its_writer_cannot_change() {
        let host = host();
        let copy = host.take_over().expect("verified");
        assert!(copy.starts_with(host.state.programs()));
        std::fs::write(&host.executable, "changed after the check").expect("written");
        assert_eq!(std::fs::read_to_string(&copy).expect("readable"), "an executable");
        assert_eq!(host.take_over().expect("verified before"), copy);
        std::fs::write(&copy, "damaged").expect("written");
        host.take_over().expect_err("neither the copy nor the release is what was signed");
        let another = host.state.programs_of(PROXY).join("another");
        std::fs::create_dir(&another).expect("made");
        keep_only(&host.state, PROXY, std::slice::from_ref(&copy)).expect("removed");
        assert!(copy.exists() && !another.exists());
    }

    #[test]
    fn what_no_trusted_key_has_signed_is_not_run() {
        let host = host();
        let stranger = KeyPair::generate_unencrypted_keypair().expect("made");
        host.publish(&stranger, "proxy", "an executable");
        host.refused("not trusted");
        host.publish(&host.key, "backup", "an executable");
        host.refused("it is a release of backup");
        host.publish(&host.key, "proxy", "an executable");
        std::fs::write(&host.executable, "another one").expect("written");
        host.refused("altered");
        std::fs::remove_file(host.beside(SIGNATURE)).expect("removed");
        host.refused(SIGNATURE);
        host.publish(&host.key, "proxy", "an executable");
        let open = host.state.trusted_keys().join("ours.pub");
        std::fs::set_permissions(&open, Permissions::from_mode(0o666)).expect("set");
        host.refused("can be written by others");
    }

    #[test]
    fn links_and_pipes_are_not_followed() {
        let host = host();
        let real = host.folder.path().join("real");
        std::fs::rename(&host.executable, &real).expect("moved");
        symlink(&real, &host.executable).expect("linked");
        host.refused("copying it");
        std::fs::rename(&real, &host.executable).expect("moved back");
        std::fs::remove_file(host.beside(MANIFEST)).expect("removed");
        nix::unistd::mkfifo(&host.beside(MANIFEST), nix::sys::stat::Mode::S_IRWXU).expect("made");
        host.refused("no plain file");
    }
}
