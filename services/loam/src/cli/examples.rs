//! Examples at the end of help texts. Each is a command line that is understood as it stands: a test of `help` reads
//! all of them.

use super::exit;

const LOAM: &str = "\
Examples:
  loam seed add debian-12 --from debian-12.qcow2 --sha256 DIGEST
  loam vm create web.toml
  loam backup run web
  loam backup restore web@latest --as web2
  loam schedule add nightly --cron '30 2 * * *' --time-zone Europe/Paris --backup web
See `loam COMMAND --help` for each command.";

const ENVIRONMENT: &str = "\
Environment:
  LOAM_STATE      state directory, as --state gives it
  COLUMNS         width of tables
  XDG_CACHE_HOME  directory in which `loam repository` keeps its cache";

/// The end of `loam vm create --help`.
pub(super) const VM_CREATE: &str = r#"Example:
  loam vm create web.toml

A definition of a VM, here web.toml:
  name = "web"
  seed = "debian-12"
  cpu_count = 1
  ram_size = "512M"
  disk_size = "10G"
  domains = ["web.example"]          # or "web.example->8080"
  install = ["install.sh"]           # scripts (#!/bin/sh) that run over SSH after the first boot

  [env]
  GREETING = "hello""#;

/// The end of `loam row-keys add --help`.
pub(super) const ROW_KEYS_ADD: &str = "\
Example of a rotation, with a restart of the provisioner after the first and after the last command:
  loam row-keys add
  loam status
  loam row-keys remove 06e655f6b24978d1";

/// The end of `loam vm ssh --help`.
pub(super) const VM_SSH: &str = "\
Example:
  loam vm ssh web -- uname -a";

/// The end of `loam schedule add --help`.
pub(super) const SCHEDULE_ADD: &str = r#"Commands that a schedule can send:
  backup.start_backup         loam backup run
  backup.verify_backup        loam backup verify
  backup.verify_repository    loam backup verify-repository
  backup.collect_repository   loam backup collect
  backup.apply_retention      loam backup forget
  provisioner.start_vm        loam vm start
  provisioner.stop_vm         loam vm stop

Examples:
  loam schedule add nightly --cron '30 2 * * *' --time-zone Europe/Paris --backup web
  loam schedule add forget --cron @daily --command backup.apply_retention --body '{"keep":{"daily":7}}'"#;

/// The end of `loam repository backup --help`.
pub(super) const REPOSITORY_BACKUP: &str = "\
Example, of a running VM whose disk is exported over NBD:
  loam repository backup --store file:///mnt/backups --passphrase-file passphrase \\
      --machine web --disk 'vda=nbd+unix:///vda?socket=/run/vm.sock'";

/// The end of `loam completion --help`.
pub(super) const COMPLETION: &str = "\
Where to put it:
  bash, in ~/.bashrc                    source <(loam completion bash)
  zsh, in ~/.zshrc                      source <(loam completion zsh)
  fish, in ~/.config/fish/config.fish   loam completion fish | source";

/// The end of `loam --help`.
pub(super) fn end_of_loam() -> String {
    [LOAM, ENVIRONMENT, exit::TABLE].join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_in_the_help_is_one() {
        let (_, text) = VM_CREATE.split_once("web.toml:\n").expect("it follows the example");
        let read = |_: &std::path::Path| Ok("#!/bin/sh\n".to_string());
        let vm = provisioner_domain::parse_definition("web.toml", text, &read).expect("a definition");
        assert_eq!((vm.name.as_str(), vm.env["GREETING"].as_str()), ("web", "hello"));
    }

    #[test]
    fn the_help_names_every_command_that_a_schedule_can_send() {
        for request in contract::catalog::requests().into_iter().filter(|request| request.schedulable) {
            for service in request.owners() {
                let command = format!("  {service}.{} ", request.name);
                assert!(SCHEDULE_ADD.contains(&command), "{command}");
            }
        }
    }
}
