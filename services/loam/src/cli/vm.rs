//! `loam vm`.

use std::path::Path;

use contract::Service;
use contract::provisioner::{CreateVm, GetVm, ListVms, RemoveVm, StartVm, StopVm, Vm, VmDefinition};
use provisioner_domain::parse_definition;

use super::args;
use super::exit::{CliError, Exit};
use super::output::{Text, cut, extra, number, show, time, whole};
use super::session::Session;
use super::watch::follow;

pub(super) async fn run(session: &Session, command: args::Vm) -> Result<(), CliError> {
    let service = Service::Provisioner;
    match command {
        args::Vm::Create { file, detach } => {
            let definition = read(&file)?;
            let begun = session.request(CreateVm { definition, operation_id: None }).await?;
            follow(session, service, begun, detach).await
        }
        args::Vm::List => {
            show(session.json, &session.request(ListVms {}).await?, |vms, text| list(vms, text))
        }
        args::Vm::Ssh { .. } => unreachable!("`ssh` is another module"),
        args::Vm::Show { vm } => show(session.json, &session.request(GetVm { vm }).await?, one),
        args::Vm::Start { vm, detach } => {
            follow(session, service, session.request(StartVm { vm, operation_id: None }).await?, detach).await
        }
        args::Vm::Stop { vm, detach } => {
            follow(session, service, session.request(StopVm { vm, operation_id: None }).await?, detach).await
        }
        args::Vm::Remove { vm, detach } => {
            follow(session, service, session.request(RemoveVm { vm, operation_id: None }).await?, detach)
                .await
        }
    }
}

/// Reads a definition; its scripts are files beside it.
pub(crate) fn read(file: &Path) -> Result<VmDefinition, CliError> {
    let usage = |message: String| CliError::new(Exit::Usage, message);
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
    text.field("address", Some(vm.address.map_or_else(|| "-".into(), |address| address.to_string())));
    text.field("seed", Some(&vm.definition.seed));
    text.field("cpus", Some(vm.definition.cpu_count));
    text.field("memory", Some(vm.definition.ram_size));
    text.field("disk", Some(vm.definition.disk_size));
    for route in &vm.definition.domains {
        text.field("domain name", Some(format_args!("{} -> port {}", route.domain, route.port)));
    }
    text.field("uuid", Some(&vm.uuid));
    text.field("mac", Some(&vm.mac));
    text.field("emulated", vm.emulated.as_ref());
    text.field("created", Some(time(&vm.created)));
    text.field("locked by", vm.locked_by.as_ref().map(|operation| format!("operation {operation}")));
}
