//! `loam vm ssh`: becomes `ssh`, with the key that the provisioner made for its VMs.
//!
//! The host key is remembered at the first connection under the VM's UUID, in the state directory: another VM that gets
//! the same name or address later is not taken for this one, and a VM whose host key has changed is refused by `ssh`.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use contract::VmName;
use contract::provisioner::{GetVm, Vm, VmState};

use super::exit::{CliError, CliExitCode};
use super::session::Session;
use crate::state::State;

const PROGRAM: &str = "ssh";
/// The user whose authorized keys the provisioner writes into every VM.
const USER: &str = "root";

/// Comes back only where `ssh` was not started.
pub(super) async fn run(
    session: &Session,
    state: &State,
    vm: VmName,
    command: &[OsString],
) -> Result<(), CliError> {
    let vm = session.request(GetVm { vm }).await?;
    let address = address_of(&vm)?;
    let key = readable(state.ssh_key())?;
    let error = ssh(&vm, address, &key, &state.known_hosts(), command).exec();
    Err(match error.kind() {
        ErrorKind::NotFound => {
            CliError::new(CliExitCode::Failed, "ssh is not installed: install the package openssh-client")
        }
        _ => CliError::new(CliExitCode::Failed, format!("starting {PROGRAM}: {error}")),
    })
}

/// Where a VM that can be entered is.
fn address_of(vm: &Vm) -> Result<IpAddr, CliError> {
    let name = &vm.definition.name;
    let refused = |why: String| CliError::new(CliExitCode::Refused, why).with_kind("not_ready");
    if vm.hypervisor != "libvirt" {
        return Err(refused(format!("{name} is {}: there is no VM to connect to", vm.hypervisor)));
    }
    match (vm.state, vm.address) {
        (VmState::Ready, Some(address)) => Ok(address),
        (VmState::Ready, None) => Err(refused(format!("{name} has no address yet"))),
        (VmState::Paused, _) => Err(refused(format!(
            "{name} is paused: `loam vm show {name}` says why, `loam vm start {name}` resumes it"
        ))),
        (VmState::Stopped, _) => {
            Err(refused(format!("{name} is stopped: start it with `loam vm start {name}`")))
        }
        (VmState::Creating | VmState::Starting, _) => {
            Err(refused(format!("{name} is not ready yet: `loam vm show {name}` says when it is")))
        }
        _ => Err(refused(format!("{name} is not running: see `loam vm show {name}`"))),
    }
}

/// The key file, where we may read it: `ssh` would ask for a password instead of saying so.
fn readable(key: PathBuf) -> Result<PathBuf, CliError> {
    let Err(error) = std::fs::File::open(&key) else { return Ok(key) };
    let hint = match error.kind() {
        ErrorKind::PermissionDenied => "run as root",
        ErrorKind::NotFound => "it is on the provisioner's host: run there, with its --state",
        _ => "it cannot be used",
    };
    Err(CliError::new(CliExitCode::Usage, format!("reading the SSH key {}: {error}; {hint}", key.display())))
}

fn ssh(vm: &Vm, address: IpAddr, key: &Path, known_hosts: &Path, command: &[OsString]) -> Command {
    let mut ssh = Command::new(PROGRAM);
    ssh.args(["-F", "none", "-l", USER, "-i"]).arg(key);
    let options = [
        "IdentitiesOnly=yes".into(),
        format!("HostKeyAlias={}", vm.uuid),
        format!("UserKnownHostsFile={}", known_hosts.display()),
        "StrictHostKeyChecking=accept-new".into(),
        "LogLevel=ERROR".into(),
    ];
    for option in options {
        ssh.arg("-o").arg(option);
    }
    ssh.arg("--").arg(address.to_string()).args(command);
    ssh
}

#[cfg(test)]
mod tests {
    use contract::provisioner::VmDefinition;
    use contract::{ByteCount, HostName, SeedName};

    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 88, 0, 12));

    fn vm(state: VmState, hypervisor: &str) -> Vm {
        Vm {
            definition: VmDefinition {
                name: VmName::new("web").expect("fits"),
                seed: SeedName::new("debian").expect("fits"),
                cpu_count: 1,
                ram_size: ByteCount::mib(512),
                disk_size: ByteCount::gib(4),
                domains: Vec::new(),
                env: Default::default(),
                install: Vec::new(),
            },
            uuid: "0b7ce0e6-5e5c-4d0e-a2b4-3a9d5b1f7a11".parse().expect("a UUID"),
            mac: "52:54:00:00:00:01".parse().expect("a MAC address"),
            pause_reason: None,
            problem: None,
            host: HostName::new("h1").expect("fits"),
            state,
            address: Some(ADDRESS),
            locked_by: None,
            created: chrono::Utc::now(),
            hypervisor: hypervisor.into(),
            variables: Vec::new(),
            scripts: Vec::new(),
            emulation_reason: None,
        }
    }

    #[test]
    fn a_vm_that_is_not_ready_is_refused_with_what_to_do() {
        assert_eq!(address_of(&vm(VmState::Ready, "libvirt")).expect("ready"), ADDRESS);
        let refused = |state, hypervisor| {
            let error = address_of(&vm(state, hypervisor)).expect_err("refused");
            assert_eq!((error.exit(), error.kind()), (CliExitCode::Refused, "not_ready"));
            error.message().to_string()
        };
        assert!(refused(VmState::Stopped, "libvirt").contains("loam vm start web"));
        assert!(refused(VmState::Starting, "libvirt").contains("not ready yet"));
        assert!(refused(VmState::Missing, "libvirt").contains("not running"));
        assert!(refused(VmState::Ready, "simulated").contains("no VM to connect to"));
    }

    #[test]
    fn ssh_gets_the_provisioners_key_and_remembers_the_host_key_by_uuid() {
        let command = ["uname".into(), "-a".into()];
        let vm = vm(VmState::Ready, "libvirt");
        let ssh = ssh(&vm, ADDRESS, Path::new("/s/key"), Path::new("/s/known_hosts"), &command);
        let words: Vec<_> = ssh.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        let line = words.join(" ");
        assert!(line.starts_with("-F none -l root -i /s/key -o IdentitiesOnly=yes"), "{line}");
        assert!(line.contains(&format!("HostKeyAlias={}", vm.uuid)), "{line}");
        assert!(line.ends_with("-- 10.88.0.12 uname -a"), "{line}");
    }

    #[test]
    fn a_key_that_is_not_there_says_where_it_is() {
        let error = readable("/nonexistent/ssh_ed25519".into()).expect_err("missing");
        assert!(error.message().contains("on the provisioner's host"), "{}", error.message());
    }
}
