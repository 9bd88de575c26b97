//! The operator's commands.
//!
//! ```text
//!   args (clap) -> one module a noun: says words over the bus -> output: a table or JSON -> exit: a code
//!                        |
//!                        +- work: what lasts is watched, with a bar, until it ends
//! ```
//!
//! A command is an ordinary client on the bus, with a person's key. It decides nothing that a service decides. The
//! commands of `repository` are not said to anybody: they work on a store themselves.

mod args;
mod backup;
mod bus;
pub mod client;
mod demo;
pub mod exit;
mod op;
mod output;
mod proxy;
mod release;
mod repository;
mod schedule;
mod seed;
mod session;
mod upgrade;
pub(crate) mod vm;
mod work;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Args, Command};
use client::Whereabouts;
use exit::{Exit, Trouble};
use session::Session;

use crate::state::State;

/// Reads the arguments, does what they say, and tells how it went.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let json = args.json;
    match carry_out(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => trouble.tell(json),
    }
}

fn carry_out(args: Args) -> Result<(), Trouble> {
    match args.command {
        Command::Up { config, hypervisor } => {
            let options = crate::up::Options { state: args.state, config, hypervisor };
            crate::up::run(&options).map_err(Trouble::of_start)
        }
        Command::Bus(command) => bus::run(&State::at(args.state), command),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "loam", &mut std::io::stdout());
            Ok(())
        }
        Command::Release(command) => release::run(args.json, command),
        Command::Repository(command) => repository::run(args.json, command),
        command => {
            let whereabouts = Whereabouts { state: &args.state, url: args.url, key: args.key };
            speak(whereabouts, args.json, command)
        }
    }
}

/// Carries out whatever is said over the bus.
fn speak(whereabouts: Whereabouts<'_>, json: bool, command: Command) -> Result<(), Trouble> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Trouble::new(Exit::Failed, format!("starting: {error}")))?;
    runtime.block_on(async {
        // A definition is read before anybody is asked anything: what is wrong in it is wrong without a bus.
        if let Command::Vm(args::Vm::Create { file, .. }) = &command {
            vm::read(file)?;
        }
        let session = Session::open(whereabouts, json).await?;
        match command {
            Command::Status => upgrade::status(&session).await,
            Command::Seed(command) => seed::run(&session, command).await,
            Command::Vm(command) => vm::run(&session, command).await,
            Command::Proxy { .. } => proxy::run(&session).await,
            Command::Backup(command) => backup::run(&session, command).await,
            Command::Schedule(command) => schedule::run(&session, command).await,
            Command::Upgrade(command) => upgrade::run(&session, command).await,
            Command::Op(command) => op::run(&session, command).await,
            Command::Demo(args) => demo::run(&session, args).await,
            Command::Up { .. }
            | Command::Bus(_)
            | Command::Release(_)
            | Command::Repository(_)
            | Command::Completion { .. } => unreachable!("carried out without a bus"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Args::command().debug_assert();
    }

    #[test]
    fn both_spellings_of_the_routes_and_of_the_completions_are_understood() {
        for words in [&["loam", "proxy"][..], &["loam", "proxy", "routes"], &["loam", "completion", "bash"]] {
            Args::try_parse_from(words).expect("understood");
        }
    }
}
