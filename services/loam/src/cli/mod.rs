//! The operator's commands.
//!
//! ```text
//!   args (clap) -> one module a noun: requests over the bus -> output: a table or JSON -> exit: a code
//!                        |
//!                        +- watch: an operation is followed, with a bar, until it ends
//! ```
//!
//! A command is an ordinary client on the bus, with a person's key. It decides nothing that a service decides. The
//! commands of `repository` ask no service: they work on a store themselves.

mod args;
mod backup;
mod bus;
pub mod client;
mod completion;
mod demo;
mod examples;
pub mod exit;
mod help;
mod host;
mod host_join;
mod op;
mod output;
mod person;
mod proxy;
mod release;
mod repository;
mod result;
mod rotate;
mod row_keys;
mod schedule;
mod seed;
mod session;
mod ssh;
mod upgrade;
pub(crate) mod vm;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use args::{Args, Command};
use client::BusAddress;
use exit::{CliError, CliExitCode};
use host::HostCommand;
use session::Session;

use crate::state::State;
use crate::stdio;

/// Reads the arguments, runs the command and reports how it ended.
pub fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    if completion::answer(&words) {
        return ExitCode::SUCCESS;
    }
    let args = match help::parse(&words) {
        Ok(args) => args,
        Err(error) => return not_run(&error, words.iter().any(|word| word == "--json")),
    };
    let (json, only_shows) = (args.json, args.command.only_shows());
    let ended = match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(json),
    };
    ended_with(ended, only_shows)
}

/// A command line that runs nothing: `--help`, `--version`, or one that is wrong.
fn not_run(error: &clap::Error, json: bool) -> ExitCode {
    if !error.use_stderr() {
        stdio::keep(error.print());
        return ended_with(ExitCode::SUCCESS, true);
    }
    if json {
        let text = error.to_string();
        let message =
            text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect::<Vec<_>>().join(" ");
        return CliError::new(CliExitCode::Usage, message.trim_start_matches("error: ")).report(true);
    }
    // A standard error that is closed leaves no place to report that.
    drop(error.print());
    ExitCode::from(CliExitCode::Usage as u8)
}

/// The exit code of a command whose answer may not have been written: its own, unless that is 0.
fn ended_with(code: ExitCode, only_shows: bool) -> ExitCode {
    let Some(failure) = stdio::failure() else { return code };
    let exit = if only_shows { CliExitCode::Failed } else { CliExitCode::Warnings };
    let report = CliError::already_shown(exit, failure).report(false);
    if code == ExitCode::SUCCESS { report } else { code }
}

fn run(args: Args) -> Result<(), CliError> {
    match args.command {
        Command::Up { config, hypervisor } => {
            let options = crate::up::Options { state: args.state, config, hypervisor };
            crate::up::run(&options).map_err(CliError::of_start)
        }
        Command::Bus(command) => bus::run(&State::at(args.state), args.ca_file, command),
        Command::Host(HostCommand::Admission(command)) => {
            host_join::run(&State::at(args.state), args.json, command)
        }
        Command::Person(command) => person::run(&State::at(args.state), args.json, command),
        Command::Keys(command) => rotate::run(&State::at(args.state), args.json, command),
        Command::Completion { shell } => completion::print(shell),
        Command::Release(command) => release::run(args.json, command),
        Command::Repository(command) => repository::run(args.json, command),
        Command::RowKeys(command) => row_keys::run(&State::at(args.state), args.json, command),
        command => {
            let state = State::at(&args.state);
            let address =
                BusAddress { state: &args.state, url: args.url, key: args.key, ca_file: args.ca_file };
            run_on_bus(address, &state, args.json, command)
        }
    }
}

/// Runs a command that sends requests to services.
fn run_on_bus(address: BusAddress<'_>, state: &State, json: bool, command: Command) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::new(CliExitCode::Failed, format!("starting: {error}")))?;
    runtime.block_on(async {
        // A definition is read before anybody is asked: what is wrong in it is wrong without a bus.
        if let Command::Vm(vm::VmCommand::Create { file, .. }) = &command {
            vm::read(file)?;
        }
        let session = Session::open(address, json).await?;
        match command {
            Command::Status => upgrade::status(&session).await,
            Command::Seed(command) => seed::run(&session, command).await,
            Command::Vm(vm::VmCommand::Ssh { vm, command }) => ssh::run(&session, state, vm, &command).await,
            Command::Vm(command) => vm::run(&session, command).await,
            Command::Host(HostCommand::Record(command)) => host::run(&session, command).await,
            Command::Proxy => proxy::run(&session).await,
            Command::Backup(command) => backup::run(&session, command).await,
            Command::Schedule(command) => schedule::run(&session, command).await,
            Command::Upgrade(command) => upgrade::run(&session, command).await,
            Command::Op(command) => op::run(&session, command).await,
            Command::Demo(args) => demo::run(&session, args).await,
            Command::Up { .. }
            | Command::Bus(_)
            | Command::Host(HostCommand::Admission(_))
            | Command::Person(_)
            | Command::Keys(_)
            | Command::Release(_)
            | Command::Repository(_)
            | Command::RowKeys(_)
            | Command::Completion { .. } => unreachable!("these run without a bus"),
        }
    })
}
