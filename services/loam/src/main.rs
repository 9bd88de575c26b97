//! The `loam` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Err(error) = chassis::leave_no_core_dump() {
        loam::stdio::note(format_args!("loam: {:#}", anyhow::Error::from(error)));
        return ExitCode::FAILURE;
    }
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == loam::up::child::EXEC) {
        loam::stdio::note(format_args!("loam: {}", loam::up::child::become_program(arguments)));
        return ExitCode::FAILURE;
    }
    loam::cli::main()
}
