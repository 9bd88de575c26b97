//! `loam release`: keys, and signed release directories. It contacts nobody.
//!
//! ```text
//!   keygen --out DIR    DIR/release.key   secret, without a passphrase: keep it off the hosts that trust it
//!                       DIR/release.pub   copy it into {state}/keys/release of every host that trusts it
//!   sign DIR            DIR/loam-proxy, there already    ->  DIR/release.toml  ->  DIR/release.toml.minisig
//! ```
//!
//! Keys and signatures are minisign's; its own tool can check them.

use std::fs::OpenOptions;
use std::io::{Cursor, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use contract::Service;
use contract::upgrade::ReleaseManifest;
use minisign::{KeyPair, SecretKey, SecretKeyBox};
use serde_json::json;

use super::exit::{CliError, CliExitCode};
use super::output::show;

const SECRET_KEY: &str = "release.key";
const PUBLIC_KEY: &str = "release.pub";
const MANIFEST: &str = "release.toml";
const SIGNATURE: &str = "release.toml.minisig";
const FOR_US: u32 = 0o600;
const FOR_ALL: u32 = 0o644;

#[derive(Debug, Subcommand)]
pub(super) enum ReleaseCommand {
    /// Make a key pair that signs releases
    Keygen {
        /// Directory for the key pair
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Sign the executable `loam-SERVICE` in a directory
    Sign {
        /// Release directory
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// Service that the release replaces: provisioner, backup, proxy or scheduler
        #[arg(long)]
        service: Service,
        /// Version that the executable reports, such as 1.2.3; a build that reports another is rolled back
        #[arg(long)]
        version: String,
        /// File with the secret key that signs, as `release keygen` makes it (a minisign key)
        #[arg(long, value_name = "FILE")]
        key_file: PathBuf,
    },
}

/// Runs a command; `json` chooses how the result is shown.
pub(super) fn run(json: bool, command: ReleaseCommand) -> Result<(), CliError> {
    match command {
        ReleaseCommand::Keygen { out } => {
            let (secret, public) = generate(&out)?;
            let answer = json!({ "secret_key": secret, "public_key": public });
            show(json, &answer, |_, text| {
                text.line(format_args!("secret key {}", secret.display()));
                text.line(format_args!(
                    "public key {}; copy it into keys/release of each host's state directory",
                    public.display()
                ));
            })
        }
        ReleaseCommand::Sign { folder, service, version, key_file } => {
            let manifest = sign(&folder, service, version, &key_file)?;
            show(json, &manifest, |manifest, text| {
                text.line(format_args!(
                    "signed {} {}, SHA-256 {}…",
                    manifest.service,
                    manifest.version,
                    &manifest.sha256[..16]
                ));
            })
        }
    }
}

fn failed(doing: &str, path: &Path, error: impl std::fmt::Display) -> CliError {
    CliError::new(CliExitCode::Failed, format!("{doing} {}: {error}", path.display()))
}

fn generate(folder: &Path) -> Result<(PathBuf, PathBuf), CliError> {
    std::fs::create_dir_all(folder).map_err(|error| failed("making", folder, error))?;
    let (secret, public) = (folder.join(SECRET_KEY), folder.join(PUBLIC_KEY));
    let broken = |error| failed("making a key for", folder, error);
    let pair = KeyPair::generate_unencrypted_keypair().map_err(broken)?;
    let secret_text = pair.sk.to_box(None).map_err(broken)?.into_string();
    let public_text = pair.pk.to_box().map_err(broken)?.into_string();
    write_new(&secret, &secret_text, FOR_US)?;
    write_new(&public, &public_text, FOR_ALL)?;
    Ok((secret, public))
}

/// Keys are never overwritten: releases signed with a lost key cannot be distinguished from forged ones.
fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), CliError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| failed("writing", path, error))
}

fn sign(folder: &Path, service: Service, version: String, key: &Path) -> Result<ReleaseManifest, CliError> {
    let key = read_key(key)?;
    let file = format!("loam-{service}");
    let executable = folder.join(&file);
    let sha256 = chassis::sha256_of(&executable).map_err(|error| {
        CliError::new(CliExitCode::Usage, format!("reading {}: {error}", executable.display()))
    })?;
    let manifest = ReleaseManifest {
        format: ReleaseManifest::FORMAT,
        critical: Vec::new(),
        service,
        version,
        file,
        sha256,
        made: chrono::Utc::now(),
    };
    let text = toml::to_string(&manifest).expect("names, digests and times are plain data");
    let path = folder.join(MANIFEST);
    let signature = minisign::sign(None, &key, Cursor::new(&text), None, Some("signature of a Loam release"))
        .map_err(|error| failed("signing", &path, error))?;
    let signature_path = folder.join(SIGNATURE);
    std::fs::write(&path, text).map_err(|error| failed("writing", &path, error))?;
    std::fs::write(&signature_path, signature.into_string())
        .map_err(|error| failed("writing", &signature_path, error))?;
    Ok(manifest)
}

fn read_key(path: &Path) -> Result<SecretKey, CliError> {
    let usage = |sentence: String| CliError::new(CliExitCode::Usage, sentence);
    let unreadable = |error: &dyn std::fmt::Display| usage(format!("reading {}: {error}", path.display()));
    let mode = std::fs::metadata(path).map_err(|error| unreadable(&error))?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        let place = path.display();
        return Err(usage(format!("{place} is open to others (mode {mode:o}); run `chmod go= {place}`")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(&error))?;
    SecretKeyBox::from_string(&text)
        .and_then(SecretKeyBox::into_unencrypted_secret_key)
        .map_err(|error| unreadable(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signed_release_is_verified_by_its_public_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let (secret, public) = generate(&folder.path().join("keys")).expect("made");
        let mode = std::fs::metadata(&secret).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        std::fs::write(folder.path().join("loam-proxy"), "executable").expect("written");
        let manifest = sign(folder.path(), Service::Proxy, "0.2.0".into(), &secret).expect("signed");
        let text = std::fs::read_to_string(folder.path().join(MANIFEST)).expect("there");
        assert_eq!(toml::from_str::<ReleaseManifest>(&text).expect("read"), manifest);
        let read = |path: PathBuf| std::fs::read_to_string(path).expect("there");
        let key = minisign_verify::PublicKey::decode(&read(public)).expect("a key");
        let signature =
            minisign_verify::Signature::decode(&read(folder.path().join(SIGNATURE))).expect("a signature");
        key.verify(text.as_bytes(), &signature, false).expect("verified");
        assert!(key.verify(text.replace("0.2.0", "0.3.0").as_bytes(), &signature, false).is_err());
    }

    #[test]
    fn keys_are_never_overwritten_and_keys_open_to_others_never_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let (secret, _) = generate(folder.path()).expect("made");
        assert_eq!(generate(folder.path()).expect_err("there already").exit(), CliExitCode::Failed);
        std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o644)).expect("set");
        let refused = sign(folder.path(), Service::Proxy, "0.2.0".into(), &secret).expect_err("open");
        assert!(refused.message().contains("chmod go="), "{}", refused.message());
    }
}
