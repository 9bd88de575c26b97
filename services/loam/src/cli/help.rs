//! Where help shows an option: global ones in `loam --help` alone, those that open a repository in
//! `loam repository --help` alone. They are accepted after every command all the same.

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches};

use super::args::Args;
use super::repository::{HELP_END, OPTIONS};

const REPOSITORY: &str = "repository";
const REPOSITORY_ELSEWHERE: &str = "\
Options that open a repository, such as --store and --passphrase-file: see `loam repository --help`
Global options, such as --json: see `loam --help`";
const GLOBAL_ELSEWHERE: &str = "Global options, such as --json and --state: see `loam --help`";

/// Reads the command line.
pub(super) fn parse(words: &[OsString]) -> Result<Args, clap::Error> {
    Args::from_arg_matches(&command().try_get_matches_from(words)?)
}

/// The command line as clap knows it, with the global options hidden below the first level.
pub(super) fn command() -> clap::Command {
    let command = Args::command();
    let global: Vec<_> = command.get_arguments().filter(|arg| arg.is_global_set()).cloned().collect();
    hide_below(command, &global)
}

fn hide_below(command: clap::Command, global: &[clap::Arg]) -> clap::Command {
    command.mut_subcommands(|below| {
        let below = if below.get_name() == REPOSITORY { show_repository_options_once(below) } else { below };
        // A command's own option of that name, such as `bus prepare --url`, stays.
        let own: Vec<_> = below.get_arguments().map(|arg| arg.get_id().clone()).collect();
        let hidden = global.iter().filter(|arg| !own.contains(arg.get_id()));
        let mut below = below.args(hidden.map(|arg| arg.clone().hide(true)));
        if below.get_after_help().is_none() {
            below = below.after_help(GLOBAL_ELSEWHERE);
        }
        hide_below(below, global)
    })
}

/// `loam repository --help` shows the options that open a repository; the help of its commands does not.
fn show_repository_options_once(command: clap::Command) -> clap::Command {
    fn hide(command: clap::Command) -> clap::Command {
        let has_some = command.get_arguments().any(opens_a_repository);
        let command = command.mut_args(|arg| if opens_a_repository(&arg) { arg.hide(true) } else { arg });
        let command = if has_some { command.after_help(REPOSITORY_ELSEWHERE) } else { command };
        command.mut_subcommands(hide)
    }
    let snapshots = command.get_subcommands().find(|below| below.get_name() == "snapshots");
    let options =
        snapshots.expect("the list is a command").get_arguments().filter(|arg| opens_a_repository(arg));
    let shown = clap::Command::new("").disable_help_flag(true).help_template("{all-args}");
    let text = shown.args(options.cloned().collect::<Vec<_>>()).render_help().to_string();
    let end = format!("{}\n\n{}", text.trim_end(), HELP_END);
    command.after_help(end).mut_subcommands(hide)
}

fn opens_a_repository(arg: &clap::Arg) -> bool {
    arg.get_help_heading() == Some(OPTIONS)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        command().debug_assert();
    }

    #[test]
    fn global_options_are_read_after_every_command_and_shown_by_the_first_help_alone() {
        let words = ["loam", "vm", "show", "web", "--state", "/x", "--json"].map(OsString::from);
        let args = parse(&words).expect("understood");
        assert_eq!((args.state, args.json), (PathBuf::from("/x"), true));
        let help = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            parse(&words).expect_err("help").to_string()
        };
        assert!(help(&["loam", "--help"]).contains("--state <DIR>"));
        let below = help(&["loam", "vm", "show", "--help"]);
        assert!(!below.contains("--state <DIR>") && below.contains("see `loam --help`"), "{below}");
        assert!(help(&["loam", "repository", "--help"]).contains("--cache <DIR>"));
        let below = help(&["loam", "repository", "keys", "add", "--help"]);
        assert!(
            !below.contains("--cache <DIR>") && below.contains("see `loam repository --help`"),
            "{below}"
        );
        assert!(below.contains("--store <URL>"), "what is required stays in the usage: {below}");
    }

    #[test]
    fn every_line_of_help_is_one_sentence_that_begins_with_a_capital_and_ends_without_a_stop() {
        fn check(command: &clap::Command) {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let helps = command.get_arguments().map(|arg| {
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                (format!("{} {}", command.get_name(), arg.get_id()), help)
            });
            for (place, help) in std::iter::once((command.get_name().to_string(), about)).chain(helps) {
                let first = help.chars().next().unwrap_or_default();
                assert!(first.is_uppercase() || help.starts_with("http"), "{place}: {help:?}");
                assert!(!help.ends_with('.') && !help.contains('\n'), "{place}: {help:?}");
            }
            command.get_subcommands().for_each(check);
        }
        check(&command());
    }

    #[test]
    fn both_spellings_of_the_routes_are_understood() {
        for words in [&["loam", "proxy"][..], &["loam", "proxy", "routes"]] {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            parse(&words).expect("understood");
        }
    }
}
