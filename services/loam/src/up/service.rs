//! The settings file written for each service, and how it is started.

use std::path::{Path, PathBuf};

use contract::permissions::User;
use contract::{Realm, Service};

use super::child::LaunchSpec;
use super::settings::{Hypervisor, Settings};
use super::users::{Users, user_name};
use crate::state::{State, StateDirError, access, keys, write_private};

/// What the settings of all services have in common.
#[derive(Clone, Debug)]
pub(super) struct CommonSettings<'a> {
    /// The state directory.
    pub(super) state: &'a State,
    /// The person's settings.
    pub(super) settings: &'a Settings,
    /// The URL of the bus.
    pub(super) url: &'a str,
    /// The authority of its servers, where they have one.
    pub(super) ca_file: Option<&'a Path>,
    /// The folder with the nkeys.
    pub(super) keys: &'a Path,
    /// Who runs which service.
    pub(super) users: &'a Users,
    /// The hypervisor, where the command line names one.
    pub(super) hypervisor: Option<Hypervisor>,
}

/// Writes the settings of one service, for its user to read, and copies of the secrets that they name: files of a person's
/// that only root can read.
pub(super) fn write_settings(common: &CommonSettings<'_>, service: Service) -> Result<(), StateDirError> {
    let mut all = settings(common, service);
    let owner = common.users.owner(service.name()).filter(|owner| owner.uid != 0);
    let write = |path: &Path, content: &[u8]| {
        write_private(path, content)?;
        owner.map_or(Ok(()), |owner| access::share(path, owner))
    };
    if owner.is_some() {
        for (secret, copy) in secrets_to_copy(&mut all, common.state, service) {
            let content = std::fs::read(&secret).map_err(StateDirError::disk("reading", &secret))?;
            write(&copy, &content)?;
        }
    }
    let text = toml::to_string(&all).expect("a table is plain data");
    write(&common.state.settings_of(service), text.as_bytes())
}

/// The files with secrets that the settings name outside of the state directory's keys, each with the copy that the
/// settings name instead from then on.
fn secrets_to_copy(all: &mut toml::Table, state: &State, service: Service) -> Vec<(PathBuf, PathBuf)> {
    const SECRETS: [&[&str]; 4] = [
        &["nats", "nkey_file"],
        &["backup", "key_file"],
        &["backup", "passphrase_file"],
        &["backup", "s3", "secret_access_key_file"],
    ];
    let mut copies = Vec::new();
    for path in SECRETS {
        let (name, parts) = path.split_last().expect("a path has a name");
        let part = parts.iter().try_fold(&mut *all, |part, name| part.get_mut(*name)?.as_table_mut());
        let Some(toml::Value::String(file)) = part.and_then(|part| part.get_mut(*name)) else { continue };
        let secret = PathBuf::from(&*file);
        if !secret.starts_with(state.keys()) {
            let copy = state.run().join(format!("{service}.{name}"));
            *file = copy.display().to_string();
            copies.push((secret, copy));
        }
    }
    copies
}

/// The same without the bus, whose keys may not be made yet: for the service to check.
pub(super) fn settings_to_check(common: &CommonSettings<'_>, service: Service) -> String {
    let mut all = settings(common, service);
    all.remove("nats");
    toml::to_string(&all).expect("a table is plain data")
}

fn settings(common: &CommonSettings<'_>, service: Service) -> toml::Table {
    let text = |value: &Path| toml::Value::String(value.display().to_string());
    let mut nats = toml::Table::new();
    nats.insert("url".into(), common.url.into());
    nats.insert("nkey_file".into(), text(&keys::file_of(common.keys, &User::Service(service))));
    if let Some(ca_file) = common.ca_file {
        nats.insert("ca_file".into(), text(ca_file));
    }
    nats.insert("people_file".into(), text(&common.state.people()));
    let mut part = common.settings.part(service);
    match service {
        Service::Provisioner => {
            if let Some(hypervisor) = common.hypervisor {
                part.insert("hypervisor".into(), hypervisor.name().into());
            }
            if common.users.are_separate() {
                part.insert("backup_user".into(), user_name(Service::Backup.name()).into());
            }
        }
        Service::Backup => {
            // The built-in store is made here; a store that the person named may hold somebody else's backups.
            if !part.contains_key("store") && !part.contains_key("create_repository") {
                part.insert("create_repository".into(), true.into());
            }
            if !part.contains_key("key_file") && !part.contains_key("passphrase_file") {
                part.insert("key_file".into(), text(&common.state.backup_key()));
            }
        }
        _ => {}
    }
    let realm: &Realm = &common.settings.realm;
    let mut all = toml::Table::new();
    all.insert("host".into(), common.settings.host.to_string().into());
    all.insert("state_dir".into(), text(common.state.root()));
    all.insert("realm".into(), realm.to_string().into());
    if let Some(kept) = common.settings.operations_kept {
        all.insert("operations_kept".into(), i64::from(kept).into());
    }
    all.insert("nats".into(), nats.into());
    all.insert(service.name().into(), part.into());
    all
}

/// How a service is started.
pub(super) fn launch(state: &State, service: Service, executable: &Path) -> LaunchSpec {
    LaunchSpec::of(service.name(), executable).variable("LOAM_CONFIG", state.settings_of(service))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(text: &str, service: Service) -> toml::Table {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("loam.toml");
        std::fs::write(&file, text).expect("written");
        let user = Settings::read(Some(&file)).expect("read");
        let state = State::at("/var/lib/loam");
        let keys = state.keys();
        let common = CommonSettings {
            state: &state,
            settings: &user,
            url: "nats://127.0.0.1:4222",
            ca_file: None,
            keys: &keys,
            hypervisor: Some(Hypervisor::Simulated),
            users: &Users::default(),
        };
        let all = settings(&common, service);
        assert_eq!(
            all["nats"]["nkey_file"].as_str(),
            Some(format!("/var/lib/loam/keys/{service}.nk").as_str())
        );
        all[service.name()].as_table().expect("a part").clone()
    }

    #[test]
    fn only_the_built_in_store_is_created_by_default() {
        assert_eq!(part("", Service::Backup)["create_repository"].as_bool(), Some(true));
        let own = part("[backup]\nstore = \"s3://bucket\"\n", Service::Backup);
        assert!(!own.contains_key("create_repository"));
        assert_eq!(own["key_file"].as_str(), Some("/var/lib/loam/keys/backup.key"));
    }

    #[test]
    fn secrets_outside_the_state_directory_are_named_by_their_copies() {
        let mut all: toml::Table = toml::from_str(
            "[nats]\nnkey_file = \"/s/keys/backup.nk\"\n[backup]\nkey_file = \"/etc/store.key\"\n\
             [backup.s3]\nsecret_access_key_file = \"/etc/s3\"\n",
        )
        .expect("toml");
        let copies = secrets_to_copy(&mut all, &State::at("/s"), Service::Backup);
        let copy = |name: &str| PathBuf::from(format!("/s/run/backup.{name}"));
        let expected = [("/etc/store.key", copy("key_file")), ("/etc/s3", copy("secret_access_key_file"))];
        assert_eq!(copies, expected.map(|(secret, copy)| (PathBuf::from(secret), copy)));
        assert_eq!(all["nats"]["nkey_file"].as_str(), Some("/s/keys/backup.nk"), "it may be rotated");
        assert_eq!(
            all["backup"]["s3"]["secret_access_key_file"].as_str(),
            copy("secret_access_key_file").to_str()
        );
        assert_eq!(secrets_to_copy(&mut toml::Table::new(), &State::at("/s"), Service::Proxy), []);
    }

    #[test]
    fn the_hypervisor_of_the_command_line_replaces_the_one_in_the_file() {
        let provisioner =
            part("[provisioner]\nhypervisor = \"libvirt\"\nready_seconds = 5\n", Service::Provisioner);
        assert_eq!(provisioner["hypervisor"].as_str(), Some("simulated"));
        assert_eq!(provisioner["ready_seconds"].as_integer(), Some(5));
    }
}
