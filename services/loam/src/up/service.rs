//! What each service is told: the settings file written for it, and how it is started.

use std::path::Path;

use contract::{Realm, Service};

use super::child::Launch;
use super::settings::{Hypervisor, Settings};
use crate::state::keys;
use crate::state::{State, StateError, write_private};

/// What all of them are told.
#[derive(Clone, Debug)]
pub(super) struct Common<'a> {
    /// The state folder.
    pub(super) state: &'a State,
    /// What the user wrote.
    pub(super) settings: &'a Settings,
    /// Where the bus is.
    pub(super) url: &'a str,
    /// The folder with the nkeys.
    pub(super) keys: &'a Path,
    /// What is to run the machines, where the person said so.
    pub(super) hypervisor: Option<Hypervisor>,
}

/// Writes the settings of one service.
pub(super) fn write_settings(common: &Common<'_>, service: Service) -> Result<(), StateError> {
    let text = toml::to_string(&settings(common, service)).expect("a table is plain data");
    write_private(&common.state.settings_of(service), text.as_bytes())
}

/// The same without the bus, whose keys may not be made yet: for asking the service whether it understands them.
pub(super) fn settings_to_check(common: &Common<'_>, service: Service) -> String {
    let mut all = settings(common, service);
    all.remove("nats");
    toml::to_string(&all).expect("a table is plain data")
}

fn settings(common: &Common<'_>, service: Service) -> toml::Table {
    let text = |value: &Path| toml::Value::String(value.display().to_string());
    let mut nats = toml::Table::new();
    nats.insert("url".into(), common.url.into());
    nats.insert("nkey_file".into(), text(&keys::of_service(common.keys, service)));
    let mut part = common.settings.part(service);
    match service {
        Service::Provisioner => {
            if let Some(hypervisor) = common.hypervisor {
                part.insert("hypervisor".into(), hypervisor.name().into());
            }
        }
        Service::Backup => {
            // The embedded store is ours to make; a store that the user named may hold another's backups.
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
    all.insert("nats".into(), nats.into());
    all.insert(service.name().into(), part.into());
    all
}

/// How a service is started.
pub(super) fn launch(state: &State, service: Service, executable: &Path) -> Launch {
    Launch::of(service.name(), executable).variable("LOAM_CONFIG", state.settings_of(service))
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
        let common = Common {
            state: &state,
            settings: &user,
            url: "nats://127.0.0.1:4222",
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
    fn only_the_embedded_store_is_made_without_being_asked() {
        assert_eq!(part("", Service::Backup)["create_repository"].as_bool(), Some(true));
        let own = part("[backup]\nstore = \"s3://bucket\"\n", Service::Backup);
        assert!(!own.contains_key("create_repository"));
        assert_eq!(own["key_file"].as_str(), Some("/var/lib/loam/keys/backup.key"));
    }

    #[test]
    fn the_simulated_hypervisor_goes_over_what_the_file_says() {
        let provisioner =
            part("[provisioner]\nhypervisor = \"libvirt\"\nready_seconds = 5\n", Service::Provisioner);
        assert_eq!(provisioner["hypervisor"].as_str(), Some("simulated"));
        assert_eq!(provisioner["ready_seconds"].as_integer(), Some(5));
    }
}
