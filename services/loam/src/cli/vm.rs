//! `loam vm`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use clap_complete::ArgValueCompleter;
use contract::provisioner::{
    CreateVm, ForgetVm, GetVm, GetVmSecrets, ListHosts, ListVms, RemoveVm, StartVm, StopVm, Vm, VmDefinition,
    VmSecrets,
};
use contract::{HostName, VmName};
use provisioner_domain::parse_definition;

use super::args::{DETACH, HOST};
use super::exit::{CliError, CliExitCode};
use super::host::list_unclaimed;
use super::output::{Text, cut, extra, number, printable, show, time, whole};
use super::session::Session;
use super::watch::begin;
use super::{completion, examples};

#[derive(Debug, Subcommand)]
pub(super) enum VmCommand {
    /// Create a VM from its definition and start it
    #[command(after_help = examples::VM_CREATE)]
    Create {
        /// Definition of the VM, a TOML file
        file: PathBuf,
        #[arg(long, value_name = "NAME", help = HOST, add = ArgValueCompleter::new(completion::hosts))]
        host: Option<HostName>,
        /// Create it even where the host has less memory, disk space or processors than it asks for
        #[arg(long)]
        overcommit: bool,
        #[arg(long, help = DETACH)]
        detach: bool,
    },
    /// List VMs
    List,
    /// Show one VM
    Show {
        /// Name of the VM
        #[arg(add = ArgValueCompleter::new(completion::vms))]
        vm: VmName,
        /// Show the values of its variables and the texts of its scripts, too; only the operator may
        #[arg(long)]
        secrets: bool,
    },
    /// Open a shell in a VM over SSH, or run one command
    ///
    /// Needs root: it uses the key that the provisioner keeps in the state directory. Ends with the exit code of ssh.
    #[command(after_help = examples::VM_SSH)]
    Ssh {
        /// Name of the VM
        #[arg(add = ArgValueCompleter::new(completion::vms))]
        vm: VmName,
        /// Command to run in the VM (default: a shell)
        #[arg(last = true)]
        command: Vec<OsString>,
    },
    /// Start a stopped VM
    Start(OneVm),
    /// Shut down a VM, and power it off if it still runs after 3 minutes
    Stop(OneVm),
    /// Power off and remove a VM with its disk, without asking; its backups stay
    Remove(OneVm),
    /// Forget a VM of a host that is marked as removed: its name is free again
    Forget {
        /// Host that it was on
        #[arg(add = ArgValueCompleter::new(completion::hosts))]
        host: HostName,
        /// Name of the VM
        #[arg(add = ArgValueCompleter::new(completion::vms))]
        vm: VmName,
    },
}

/// A command about one VM that begins an operation.
#[derive(Debug, clap::Args)]
pub(super) struct OneVm {
    /// Name of the VM
    #[arg(add = ArgValueCompleter::new(completion::vms))]
    vm: VmName,
    #[arg(long, help = DETACH)]
    detach: bool,
}

pub(super) async fn run(session: &Session, command: VmCommand) -> Result<(), CliError> {
    let operation_id = None;
    match command {
        VmCommand::Create { file, host, overcommit, detach } => {
            let definition = read(&file)?;
            begin(session, CreateVm { definition, host, overcommit, operation_id }, detach).await
        }
        VmCommand::List => {
            let vms = session.request(ListVms {}).await?;
            // The list is of use without them.
            let hosts = match session.json {
                true => Vec::new(),
                false => session.request(ListHosts {}).await.unwrap_or_default(),
            };
            show(session.json, &vms, |vms, text| {
                list(vms, text);
                list_unclaimed(&hosts, text);
            })
        }
        VmCommand::Show { vm, secrets } => {
            let mut shown = session.request(GetVm { vm: vm.clone() }).await?;
            if secrets {
                let VmSecrets { env, install } = session.request(GetVmSecrets { vm }).await?;
                (shown.definition.env, shown.definition.install) = (env, install);
            }
            show(session.json, &shown, one)
        }
        VmCommand::Forget { host, vm } => {
            show(session.json, &session.request(ForgetVm { host, vm }).await?, |forgotten, text| {
                let (vm, host) = (&forgotten.vm.definition.name, &forgotten.vm.host);
                text.line(format_args!("VM {vm} of host {host} is forgotten"));
            })
        }
        VmCommand::Ssh { .. } => unreachable!("`ssh` is another module"),
        VmCommand::Start(OneVm { vm, detach }) => begin(session, StartVm { vm, operation_id }, detach).await,
        VmCommand::Stop(OneVm { vm, detach }) => begin(session, StopVm { vm, operation_id }, detach).await,
        VmCommand::Remove(OneVm { vm, detach }) => {
            begin(session, RemoveVm { vm, operation_id }, detach).await
        }
    }
}

/// Reads a definition; its scripts are files beside it.
pub(crate) fn read(file: &Path) -> Result<VmDefinition, CliError> {
    let usage = |message: String| CliError::new(CliExitCode::Usage, message);
    let text = std::fs::read_to_string(file)
        .map_err(|error| usage(format!("reading {}: {error}", file.display())))?;
    let folder = file.parent().unwrap_or(Path::new("."));
    let beside = |script: &Path| std::fs::read_to_string(folder.join(script));
    parse_definition(&file.display().to_string(), &text, &beside).map_err(|error| usage(error.to_string()))
}

/// The state in one word; a VM that does not really exist is called simulated.
fn state(vm: &Vm) -> String {
    let state = vm.state.name().to_string();
    if vm.hypervisor == "libvirt" { state } else { format!("{state} ({})", vm.hypervisor) }
}

fn domains(vm: &Vm) -> String {
    let domains: Vec<String> = vm.definition.domains.iter().map(|route| route.domain.to_string()).collect();
    domains.join(" ")
}

fn list(vms: &[Vm], text: &mut Text) {
    let rows = vms.iter().map(|vm| {
        [
            vm.definition.name.to_string(),
            state(vm),
            vm.host.to_string(),
            vm.address.map_or_else(|| "-".into(), |address| address.to_string()),
            vm.definition.cpu_count.to_string(),
            vm.definition.ram_size.to_string(),
            vm.definition.disk_size.to_string(),
            domains(vm),
        ]
    });
    let head = [
        whole("NAME"),
        whole("STATE"),
        extra(whole("HOST")),
        whole("ADDRESS"),
        extra(number("CPUS")),
        number("MEMORY"),
        number("DISK"),
        cut("DOMAIN NAMES"),
    ];
    text.table(head, rows.collect(), "no VMs; `loam vm create` makes one");
}

fn one(vm: &Vm, text: &mut Text) {
    text.field("name", Some(&vm.definition.name));
    text.field("state", Some(state(vm)));
    text.field("host", Some(&vm.host));
    text.field("paused", vm.pause_reason);
    text.field("problem", vm.problem.as_ref());
    text.field("address", Some(vm.address.map_or_else(|| "-".into(), |address| address.to_string())));
    text.field("seed", Some(&vm.definition.seed));
    text.field("cpus", Some(vm.definition.cpu_count));
    text.field("memory", Some(vm.definition.ram_size));
    text.field("disk", Some(vm.definition.disk_size));
    for route in &vm.definition.domains {
        text.field("domain name", Some(format_args!("{} -> port {}", route.domain, route.port)));
    }
    for name in &vm.variables {
        let value = vm.definition.env.get(name).map(|value| format!(" = {}", printable(value)));
        text.field("variable", Some(format_args!("{name}{}", value.unwrap_or_default())));
    }
    for name in &vm.scripts {
        text.field("script", Some(name));
    }
    text.field("uuid", Some(&vm.uuid));
    text.field("mac", Some(&vm.mac));
    text.field("emulated", vm.emulation_reason.as_ref());
    text.field("created", Some(time(&vm.created)));
    text.field("locked by", vm.locked_by.as_ref().map(|operation| format!("operation {operation}")));
    for script in &vm.definition.install {
        text.line(format_args!("\n{}:", script.name));
        script.text.lines().for_each(|line| text.line(format_args!("  {}", printable(line))));
    }
}
