//! The manifest of a release, checked.

use contract::Service;
use contract::upgrade::{ApplyReleaseRefused, ReleaseManifest};

use crate::version::is_version;

/// Digits of an executable's SHA-256 that name a build; services answer with as many.
pub const BUILD_DIGITS: usize = 16;
/// File names and versions of releases are short.
const NAME_MAX: usize = 100;
const DIGEST_DIGITS: usize = 64;

/// A release whose manifest was read and is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    manifest: ReleaseManifest,
}

impl Release {
    /// Reads a manifest. Call it with bytes whose signature was verified.
    ///
    /// # Errors
    /// When it cannot be read, or names a service that is not replaced by releases.
    pub fn read(manifest: &[u8]) -> Result<Release, ApplyReleaseRefused> {
        let unreadable =
            |reason: String| ApplyReleaseRefused::UnreadableRelease(format!("release.toml: {reason}"));
        let text = std::str::from_utf8(manifest).map_err(|_| unreadable("it is not UTF-8".into()))?;
        check_format(text).map_err(unreadable)?;
        let manifest: ReleaseManifest =
            toml::from_str(text).map_err(|error| unreadable(error.to_string().trim().into()))?;
        if !is_plain_name(&manifest.file) {
            let reason = format!("file {:?} is not a plain file name", cut(&manifest.file));
            return Err(unreadable(reason));
        }
        if manifest.version.len() > NAME_MAX || !is_version(&manifest.version) {
            let reason = format!("version {:?} is not a semantic version", cut(&manifest.version));
            return Err(unreadable(reason));
        }
        let digits = manifest.sha256.bytes();
        if manifest.sha256.len() != DIGEST_DIGITS
            || !digits.into_iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        {
            let reason = "sha256 is not 64 hexadecimal digits in lower case";
            return Err(unreadable(reason.into()));
        }
        match manifest.service {
            // The one runs the upgrade, the other replaces processes and is none of them.
            Service::Upgrade | Service::Supervisor => {
                Err(ApplyReleaseRefused::NotReplaceable(manifest.service))
            }
            Service::Unknown => Err(unreadable("service is none that this version knows".into())),
            Service::Provisioner | Service::Backup | Service::Proxy | Service::Scheduler => {
                Ok(Release { manifest })
            }
        }
    }

    /// Makes sure that the executable, whose SHA-256 was found to be `found`, is the one that was signed.
    ///
    /// # Errors
    /// When it is not.
    pub fn check(&self, found: &str) -> Result<(), ApplyReleaseRefused> {
        if found == self.manifest.sha256 {
            return Ok(());
        }
        Err(ApplyReleaseRefused::ExecutableAltered {
            file: self.manifest.file.clone(),
            found: found.into(),
            signed: self.manifest.sha256.clone(),
        })
    }

    /// The service that it replaces.
    pub fn service(&self) -> Service {
        self.manifest.service
    }

    /// Its version (semantic), as in the manifest.
    pub fn version(&self) -> &str {
        &self.manifest.version
    }

    /// The executable's name in the release folder.
    pub fn file(&self) -> &str {
        &self.manifest.file
    }

    /// The build that its executable reports in its health once it runs.
    pub fn build(&self) -> &str {
        &self.manifest.sha256[..BUILD_DIGITS]
    }
}

/// The keys that this version knows.
const KEYS: [&str; 7] = ["format", "critical", "service", "version", "file", "sha256", "made"];

/// Whether this version may read the manifest, whatever else is in it.
fn check_format(text: &str) -> Result<(), String> {
    let table: toml::Table =
        text.parse().map_err(|error: toml::de::Error| error.to_string().trim().to_string())?;
    let newest = i64::from(ReleaseManifest::FORMAT);
    match table.get("format").map(toml::Value::as_integer) {
        Some(Some(format)) if !(1..=newest).contains(&format) => {
            return Err(format!("it has format {format}, this version reads up to {newest}"));
        }
        _ => {}
    }
    let critical = table.get("critical").and_then(toml::Value::as_array).into_iter().flatten();
    match critical.filter_map(toml::Value::as_str).find(|key| !KEYS.contains(key)) {
        Some(key) => Err(format!("it has the critical key {:?}, which this version does not know", cut(key))),
        None => Ok(()),
    }
}

/// A name that stays in its folder whatever it is joined to.
fn is_plain_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'+');
    !name.is_empty() && name.len() <= NAME_MAX && name.bytes().all(plain) && !name.starts_with('.')
}

fn cut(text: &str) -> String {
    text.chars().take(NAME_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn manifest(service: &str, file: &str, version: &str, digest: &str) -> String {
        format!(
            "service = {service:?}\nversion = {version:?}\nfile = {file:?}\nsha256 = {digest:?}\n\
             made = \"2026-05-01T00:00:00Z\"\n"
        )
    }

    fn read(service: &str, file: &str, version: &str, digest: &str) -> Result<Release, ApplyReleaseRefused> {
        Release::read(manifest(service, file, version, digest).as_bytes())
    }

    #[test]
    fn a_valid_manifest_is_read() {
        let release = read("proxy", "loam-proxy", "1.2.3-rc.1+5", DIGEST).expect("read");
        assert_eq!((release.service(), release.version()), (Service::Proxy, "1.2.3-rc.1+5"));
        assert_eq!((release.file(), release.build()), ("loam-proxy", "0123456789abcdef"));
        assert_eq!(release.check(DIGEST), Ok(()));
    }

    #[test]
    fn a_file_outside_the_folder_cannot_be_named() {
        for file in
            ["../loam-proxy", "/bin/sh", "a/b", "..", ".", "", ".hidden", "a\\b", "a b", &"x".repeat(101)]
        {
            let refused = read("proxy", file, "1.0.0", DIGEST);
            assert!(
                matches!(&refused, Err(ApplyReleaseRefused::UnreadableRelease(reason)) if reason.contains("plain file name")),
                "{file:?}: {refused:?}"
            );
        }
    }

    #[test]
    fn an_invalid_manifest_is_refused_with_a_reason() {
        for (service, version, digest) in [
            ("kernel", "1.0.0", DIGEST),
            ("proxy", "1.0", DIGEST),
            ("proxy", "1.0.0/..", DIGEST),
            ("proxy", "1.0.0", &DIGEST.to_uppercase()),
            ("proxy", "1.0.0", "0123"),
        ] {
            let refused = read(service, "loam-proxy", version, digest);
            assert!(matches!(refused, Err(ApplyReleaseRefused::UnreadableRelease(_))), "{refused:?}");
        }
        for text in [b"\xff".as_slice(), b"", b"service ="] {
            assert!(matches!(Release::read(text), Err(ApplyReleaseRefused::UnreadableRelease(_))));
        }
    }

    #[test]
    fn a_key_that_is_not_known_is_ignored_unless_it_is_critical() {
        let known = manifest("proxy", "loam-proxy", "1.0.0", DIGEST);
        for more in ["colour = \"blue\"", "format = 1\ncritical = [\"sha256\"]\ncolour = \"blue\""] {
            Release::read(format!("{known}{more}\n").as_bytes()).expect("read");
        }
        for (more, reason) in [
            ("critical = [\"colour\"]\ncolour = \"blue\"", "critical key \"colour\""),
            ("critical = [\"colour\"]", "critical key \"colour\""),
            ("format = 2", "format 2"),
            ("format = 0", "format 0"),
        ] {
            match Release::read(format!("{known}{more}\n").as_bytes()) {
                Err(ApplyReleaseRefused::UnreadableRelease(text)) => assert!(text.contains(reason), "{text}"),
                other => panic!("{more}: {other:?}"),
            }
        }
    }

    #[test]
    fn every_key_of_the_manifest_is_known() {
        let manifest = ReleaseManifest {
            format: ReleaseManifest::FORMAT,
            critical: vec!["file".into()],
            service: Service::Proxy,
            version: "1.0.0".into(),
            file: "loam-proxy".into(),
            sha256: DIGEST.into(),
            made: Default::default(),
        };
        let table = toml::Table::try_from(manifest).expect("plain data");
        let mut keys: Vec<&str> = table.keys().map(String::as_str).collect();
        let mut known = KEYS.to_vec();
        keys.sort_unstable();
        known.sort_unstable();
        assert_eq!(keys, known);
    }

    #[test]
    fn the_upgrade_service_and_the_supervisor_are_not_replaced_this_way() {
        for (name, service) in [("upgrade", Service::Upgrade), ("supervisor", Service::Supervisor)] {
            let refused = read(name, "loam-x", "1.0.0", DIGEST);
            assert_eq!(refused, Err(ApplyReleaseRefused::NotReplaceable(service)));
        }
    }

    #[test]
    fn another_executable_than_the_signed_one_is_altered() {
        let release = read("proxy", "loam-proxy", "1.0.0", DIGEST).expect("read");
        let found = DIGEST.replace('0', "1");
        assert_eq!(
            release.check(&found),
            Err(ApplyReleaseRefused::ExecutableAltered {
                file: "loam-proxy".into(),
                found: found.clone(),
                signed: DIGEST.into()
            })
        );
    }
}
