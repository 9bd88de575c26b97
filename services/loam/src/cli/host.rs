//! `loam host`.

use clap::Subcommand;
use clap_complete::ArgValueCompleter;
use contract::HostName;
use contract::provisioner::{Host, ListHosts, RemoveHost, UnclaimedVm};

use super::completion;
use super::exit::CliError;
use super::host_join::AdmissionCommand;
use super::output::{Text, cut, extra, number, show, time, whole};
use super::session::Session;

#[derive(Debug, Subcommand)]
pub(super) enum HostCommand {
    #[command(flatten)]
    Record(HostRecordCommand),
    #[command(flatten)]
    Admission(AdmissionCommand),
}

/// What the provisioners know of hosts.
#[derive(Debug, Subcommand)]
pub(super) enum HostRecordCommand {
    /// List the hosts that run VMs
    List,
    /// Mark a host that will not come back as removed, so that its VMs can be forgotten
    MarkRemoved {
        /// Name of the host
        #[arg(add = ArgValueCompleter::new(completion::hosts))]
        host: HostName,
    },
}

pub(super) async fn run(session: &Session, command: HostRecordCommand) -> Result<(), CliError> {
    match command {
        HostRecordCommand::List => {
            show(session.json, &session.request(ListHosts {}).await?, |hosts, text| list(hosts, text))
        }
        HostRecordCommand::MarkRemoved { host } => {
            show(session.json, &session.request(RemoveHost { host }).await?, |host, text| {
                let (name, vms) = (&host.name, host.vms);
                text.line(format_args!("host {name} is marked as removed; it had {vms} VMs"));
            })
        }
    }
}

fn list(hosts: &[Host], text: &mut Text) {
    let known = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    let rows = hosts.iter().map(|host| {
        [
            host.name.to_string(),
            host.state.to_string(),
            host.vms.to_string(),
            known(host.cpus.map(|cpus| cpus.to_string())),
            known(host.memory.map(|memory| memory.to_string())),
            host.promised_memory.to_string(),
            known(host.free_disk.map(|free| free.to_string())),
            time(&host.last_seen),
            host.version.clone(),
        ]
    });
    let head = [
        whole("NAME"),
        whole("STATE"),
        number("VMS"),
        number("CPUS"),
        number("MEMORY"),
        number("OF VMS"),
        number("FREE DISK"),
        whole("LAST SEEN"),
        extra(cut("VERSION")),
    ];
    text.table(head, rows.collect(), "no host has reported yet");
    list_unclaimed(hosts, text);
}

/// VMs that Loam made and whose rows were lost.
pub(super) fn list_unclaimed(hosts: &[Host], text: &mut Text) {
    for host in hosts {
        for UnclaimedVm { name, uuid } in &host.unclaimed {
            text.line(format_args!(
                "unclaimed: {name} ({uuid}) on host {}; its row was lost, it is left alone",
                host.name
            ));
        }
    }
}
