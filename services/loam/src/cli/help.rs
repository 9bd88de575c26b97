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
const GLOBAL_ELSEWHERE: &str = "Global options (--state, --url, --key, --ca-file, --json): see `loam --help`";
/// How a help text ends that says where the global options are.
const SEE_LOAM: &str = "see `loam --help`";

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
        // A command's own option of that name, such as `bus generate-config --url`, stays.
        let own: Vec<_> = below.get_arguments().map(|arg| arg.get_id().clone()).collect();
        let hidden = global.iter().filter(|arg| !own.contains(arg.get_id()));
        let mut below = below.args(hidden.map(|arg| arg.clone().hide(true)));
        if !below.get_after_help().is_some_and(|end| end.to_string().ends_with(SEE_LOAM)) {
            below = ending_with(below, GLOBAL_ELSEWHERE);
        }
        hide_below(below, global)
    })
}

/// The command with something more at the end of its help.
fn ending_with(command: clap::Command, more: &str) -> clap::Command {
    let end = command.get_after_help().map_or_else(|| more.into(), |own| format!("{own}\n\n{more}"));
    command.after_help(end)
}

/// `loam repository --help` shows the options that open a repository; the help of its commands does not.
fn show_repository_options_once(command: clap::Command) -> clap::Command {
    fn hide(command: clap::Command) -> clap::Command {
        let has_some = command.get_arguments().any(opens_a_repository);
        let command = command.mut_args(|arg| if opens_a_repository(&arg) { arg.hide(true) } else { arg });
        let command = if has_some { ending_with(command, REPOSITORY_ELSEWHERE) } else { command };
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
    fn the_help_of_any_command_can_be_asked_for_by_name() {
        let shown = |asked: &[&str]| {
            let error = parse(&asked.iter().map(OsString::from).collect::<Vec<_>>()).expect_err("help");
            assert_eq!(error.kind(), clap::error::ErrorKind::DisplayHelp, "{asked:?}");
            error.to_string()
        };
        for command in [&[][..], &["vm"], &["vm", "create"], &["repository", "keys", "add"]] {
            let option = [&["loam"], command, &["--help"]].concat();
            assert_eq!(shown(&[&["loam", "help"], command].concat()), shown(&option));
        }
    }

    #[test]
    fn undeleting_takes_the_secret_that_other_commands_need_and_does_without_it() {
        let read = |words: &str| parse(&words.split(' ').map(OsString::from).collect::<Vec<_>>());
        let undelete = "loam repository undelete --store file:///mnt/backups --since 36h -n";
        read(undelete).expect("no secret is needed");
        read(&format!("{undelete} --passphrase-file passphrase --cache none")).expect("a secret is accepted");
        let copy = "loam repository copy --store file:///mnt/backups --key-file key --all";
        let refused = read(copy).expect_err("nowhere to copy to");
        assert_eq!(refused.kind(), clap::error::ErrorKind::MissingRequiredArgument);
        assert!(refused.to_string().contains("--to <URL>"), "{refused}");
    }

    #[test]
    fn every_dry_run_has_the_same_short_option() {
        fn check(command: &clap::Command, found: &mut usize) {
            for arg in command.get_arguments().filter(|arg| arg.get_long() == Some("dry-run")) {
                assert_eq!(arg.get_short(), Some('n'), "{}", command.get_name());
                *found += 1;
            }
            command.get_subcommands().for_each(|below| check(below, found));
        }
        let mut found = 0;
        check(&command(), &mut found);
        assert!(found > 10, "{found}");
    }

    /// The command lines among the lines of a text; a backslash joins one with the next.
    fn command_lines(text: &str) -> Vec<String> {
        let joined = text.replace("\\\n", " ");
        let lines = joined.lines().filter_map(|line| line.strip_prefix("  "));
        lines.map(str::trim).filter(|line| line.starts_with("loam ")).map(str::to_string).collect()
    }

    /// The words of a command line, as a shell makes them of it.
    fn words_of(line: &str) -> Vec<OsString> {
        let print = format!("printf '%s\\n' {line}");
        let output = std::process::Command::new("sh").args(["-c", &print]).output().expect("a shell");
        assert!(output.status.success(), "{line}");
        String::from_utf8(output.stdout).expect("UTF-8").lines().map(OsString::from).collect()
    }

    #[test]
    fn every_example_is_understood() {
        fn collect(command: &clap::Command, found: &mut Vec<String>) {
            let of_arguments = command.get_arguments().flat_map(|arg| [arg.get_help(), arg.get_long_help()]);
            let own = [command.get_about(), command.get_long_about()];
            let ends = [command.get_after_help(), command.get_after_long_help()];
            let texts = own.into_iter().chain(ends).chain(of_arguments).flatten();
            found.extend(texts.flat_map(|text| command_lines(&text.to_string())));
            command.get_subcommands().for_each(|below| collect(below, found));
        }
        let mut examples = Vec::new();
        collect(&command(), &mut examples);
        assert!(examples.len() > 10, "{examples:#?}");
        for example in examples {
            if let Err(error) = parse(&words_of(&example)) {
                panic!("{example}: {error}");
            }
        }
    }
}
