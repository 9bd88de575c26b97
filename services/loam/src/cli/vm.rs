//! `loam vm`.

use std::path::Path;

use contract::Service;
use contract::provisioner::{CreateVm, GetVm, ListVms, RemoveVm, StartVm, StopVm, Vm, VmDefinition};
use provisioner_domain::parse_definition;

use super::args;
use super::exit::{Exit, Trouble};
use super::output::{show, table, time};
use super::session::Session;
use super::work::follow;

pub(super) async fn run(session: &Session, command: args::Vm) -> Result<(), Trouble> {
    let service = Service::Provisioner;
    match command {
        args::Vm::Create { file, lasting } => {
            let definition = read(&file)?;
            let begun = session.ask(CreateVm { definition, operation_id: None }).await?;
            follow(session, service, begun, lasting).await
        }
        args::Vm::List => show(session.json, &session.ask(ListVms {}).await?, |vms| list(vms)),
        args::Vm::Show { vm } => show(session.json, &session.ask(GetVm { vm }).await?, one),
        args::Vm::Start { vm, lasting } => {
            follow(session, service, session.ask(StartVm { vm, operation_id: None }).await?, lasting).await
        }
        args::Vm::Stop { vm, lasting } => {
            follow(session, service, session.ask(StopVm { vm, operation_id: None }).await?, lasting).await
        }
        args::Vm::Remove { vm, lasting } => {
            follow(session, service, session.ask(RemoveVm { vm, operation_id: None }).await?, lasting).await
        }
    }
}

/// Reads a definition; scripts are found beside it.
pub(crate) fn read(file: &Path) -> Result<VmDefinition, Trouble> {
    let usage = |sentence: String| Trouble::new(Exit::Usage, sentence);
    let text =
        std::fs::read_to_string(file).map_err(|error| usage(format!("{}: {error}", file.display())))?;
    let folder = file.parent().unwrap_or(Path::new("."));
    let beside = |script: &Path| std::fs::read_to_string(folder.join(script));
    parse_definition(&file.display().to_string(), &text, &beside).map_err(|error| usage(error.to_string()))
}

/// How it is, in one word; a machine that does not really exist says so.
fn state(vm: &Vm) -> String {
    let state = serde_json::to_value(vm.state).ok().and_then(|value| value.as_str().map(str::to_string));
    let state = state.unwrap_or_default();
    if vm.hypervisor == "libvirt" { state } else { format!("{state} ({})", vm.hypervisor) }
}

fn domains(vm: &Vm) -> String {
    let domains: Vec<String> = vm.definition.domains.iter().map(|route| route.domain.to_string()).collect();
    domains.join(" ")
}

fn list(vms: &[Vm]) {
    let rows = vms.iter().map(|vm| {
        let address = vm.address.clone().unwrap_or_else(|| "-".into());
        let shape = format!("{} × {}", vm.definition.cpu_count, vm.definition.ram_size);
        [
            vm.definition.name.to_string(),
            state(vm),
            address,
            shape,
            vm.definition.disk_size.to_string(),
            domains(vm),
        ]
    });
    table(
        ["NAME", "STATE", "ADDRESS", "CPU × RAM", "DISK", "DOMAINS"],
        rows.collect(),
        "no machines; `loam vm create` makes one",
    );
}

fn one(vm: &Vm) {
    let line = |name: &str, value: String| println!("{name:<12} {value}");
    line("name", vm.definition.name.to_string());
    line("state", state(vm));
    line("host", vm.host.to_string());
    line("address", vm.address.clone().unwrap_or_else(|| "-".into()));
    line("seed", vm.definition.seed.to_string());
    line("cpu", vm.definition.cpu_count.to_string());
    line("ram", vm.definition.ram_size.to_string());
    line("disk", vm.definition.disk_size.to_string());
    line("domains", domains(vm));
    line("uuid", vm.uuid.clone());
    line("mac", vm.mac.clone());
    line("created", time(&vm.created));
    if let Some(operation) = &vm.locked_by {
        line("locked by", operation.to_string());
    }
}
