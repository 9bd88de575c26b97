//! The operator's commands.
//!
//! ```text
//!   args (clap) -> one module a noun: says words over the bus -> output: a table or JSON -> exit: a code
//!                        |
//!                        +- work: what lasts is watched, with a bar, until it ends
//! ```
//!
//! A command is an ordinary client on the bus, with a person's key. It decides nothing that a service decides.

mod args;
pub mod client;
pub mod exit;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};
use exit::Trouble;

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
            let simulated = hypervisor == Some(args::Hypervisor::Simulated);
            crate::up::run(&crate::up::Options {
                state: args.state,
                config,
                simulated,
            })
            .map_err(Trouble::of_start)
        }
    }
}
