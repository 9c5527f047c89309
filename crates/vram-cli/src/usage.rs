//! Help, and mistakes on the command line: in the words of clap, and as JSON if that is asked for.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap::error::ErrorKind;

use crate::args::{Cli, LogArgs};
use crate::failure::Failure;
use crate::output::{Json, Output};
use crate::streams;

/// Prints help, the version or a mistake, and returns the exit code.
///
/// # Arguments
///
/// * `args`: the command line, program included, which could not be parsed.
pub(crate) fn answer(error: &clap::Error, args: &[OsString]) -> ExitCode {
    let is_help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let logs_json = !is_help && asks_for_json_log(args);
    if !logs_json {
        // Help goes to standard output, a mistake to standard error; clap knows which. A closed stream
        // is no failure.
        let _ = error.print();
    }
    if is_help {
        return ExitCode::SUCCESS;
    }
    let failure = mistake(error, args);
    let json = asks_for_json(args).then(|| Json {
        command: "error",
        stdout_is_taken: writes_to_stdout(args) || streams::stdout_is_named(args),
    });
    let mut output = Output::new(json);
    if logs_json {
        LogArgs::start_json();
        return output.fail(failure).exit_code();
    }
    // Standard error has the mistake already, in full.
    output.fail_quietly(&failure);
    failure.exit_code()
}

fn mistake(error: &clap::Error, args: &[OsString]) -> Failure {
    let said = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "no command was given".to_owned(),
        _ => first_paragraph(&error.to_string()),
    };
    let command = Cli::command();
    let mut words = args.iter().skip(1).filter_map(|arg| arg.to_str());
    let named = words.find_map(|word| command.find_subcommand(word));
    let help = named.map_or_else(
        || "see `vram help`".to_owned(),
        |command| format!("see `vram {} --help`", command.get_name()),
    );
    Failure::usage(said).hint(help)
}

/// What clap says before it shows the usage, on one line.
fn first_paragraph(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let lines = text.lines().take_while(|line| !line.trim().is_empty());
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}

/// Whether `--json` is among the options. The command line has a mistake, so that this can only be
/// read off its words.
fn asks_for_json(args: &[OsString]) -> bool {
    options(args).any(|arg| arg == "--json")
}

/// Whether lines on standard error are to be JSON; the last word on it counts.
fn asks_for_json_log(args: &[OsString]) -> bool {
    let words: Vec<_> = options(args).filter_map(|arg| arg.to_str()).collect();
    let said = words.iter().zip(words.iter().skip(1).chain([&""])).filter_map(|(word, next)| {
        if *word == "--log-format" { Some(*next) } else { word.strip_prefix("--log-format=") }
    });
    said.last() == Some("json")
}

/// Whether the output is `-`: standard output then carries nothing but the content of a file.
fn writes_to_stdout(args: &[OsString]) -> bool {
    let joined = ["-o-", "-o=-", "--output=-"];
    let alone = |pair: &[&OsString]| match pair {
        [name, value] => (*name == "-o" || *name == "--output") && *value == "-",
        _ => false,
    };
    options(args).any(|arg| joined.iter().any(|one| arg == one))
        || options(args).collect::<Vec<_>>().windows(2).any(alone)
}

/// The words before `--`, after which there are only files.
fn options(args: &[OsString]) -> impl Iterator<Item = &OsString> {
    args.iter().skip(1).take_while(|arg| *arg != "--")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn json_and_the_dash_are_found_on_a_command_line_with_mistakes() {
        for (line, json, dash) in [
            ("vram seal --json f -o -", true, true),
            ("vram seal f --output - --json", true, true),
            ("vram seal f --output=- --json", true, true),
            ("vram seal f -o- --json", true, true),
            ("vram seal - -o f --json", true, false),
            ("vram load -- --json -o -", false, false),
            ("vram", false, false),
        ] {
            assert_eq!((asks_for_json(&words(line)), writes_to_stdout(&words(line))), (json, dash));
        }
    }

    #[test]
    fn the_form_of_the_log_is_found_on_a_command_line_with_mistakes() {
        for (line, json) in [
            ("vram serve --log-format json --x", true),
            ("vram --log-format=json serve --x", true),
            ("vram serve --log-format=json --log-format text --x", false),
            ("vram serve --log-format", false),
            ("vram load -- --log-format json", false),
        ] {
            assert_eq!(asks_for_json_log(&words(line)), json, "{line}");
        }
    }

    #[test]
    fn a_mistake_is_one_line_and_names_the_help_of_its_command() {
        use clap::Parser as _;

        let line = words("vram seal f");
        let error = Cli::try_parse_from(&line).unwrap_err();
        let shown = mistake(&error, &line).to_string();
        assert!(
            shown.contains("--key-file") && shown.ends_with("see `vram seal --help`"),
            "{shown}"
        );
        assert!(!shown.contains("Usage"), "{shown}");
    }
}
