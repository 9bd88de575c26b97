//! The settings file written for each service, and how it is started.

use std::path::Path;

use contract::permissions::User;
use contract::{Realm, Service};

use super::child::LaunchSpec;
use super::settings::{Hypervisor, Settings};
use crate::state::keys;
use crate::state::{State, StateDirError, write_private};

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
    /// The hypervisor, where the command line names one.
    pub(super) hypervisor: Option<Hypervisor>,
}

/// Writes the settings of one service.
pub(super) fn write_settings(common: &CommonSettings<'_>, service: Service) -> Result<(), StateDirError> {
    let text = toml::to_string(&settings(common, service)).expect("a table is plain data");
    write_private(&common.state.settings_of(service), text.as_bytes())
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
    fn the_hypervisor_of_the_command_line_replaces_the_one_in_the_file() {
        let provisioner =
            part("[provisioner]\nhypervisor = \"libvirt\"\nready_seconds = 5\n", Service::Provisioner);
        assert_eq!(provisioner["hypervisor"].as_str(), Some("simulated"));
        assert_eq!(provisioner["ready_seconds"].as_integer(), Some(5));
    }
}
