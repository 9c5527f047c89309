//! `vram completions` and `vram man`: made from the command line itself, so that they say what it takes.

use std::fs;

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;
use serde::Serialize;

use super::written;
use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::failure::Failure;
use crate::output::{Output, note};
use crate::table;

/// A script of completions.
#[derive(Debug, Serialize)]
struct Script {
    shell: String,
    script: String,
}

/// The pages that were written.
#[derive(Debug, Serialize)]
struct Pages {
    folder: String,
    pages: Vec<String>,
}

/// `vram completions`.
pub(crate) fn completions(args: &CompletionsArgs, output: &mut Output) -> Result<(), Failure> {
    let script = script(args.shell);
    // As it is: a script has control characters of its own.
    output.write(&script)?;
    output.json(&Script { shell: args.shell.to_string(), script })
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "vram", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// `vram man`.
pub(crate) fn man(args: &ManArgs, output: &mut Output) -> Result<(), Failure> {
    fs::create_dir_all(&args.out).map_err(|error| {
        Failure::file("make the folder", &args.out, &error).hint("give a folder")
    })?;
    let mut names = Vec::new();
    for (name, page) in pages()? {
        written::write(&args.out.join(&name), &page, &[])?;
        names.push(name);
    }
    let folder = args.out.display().to_string();
    let count = u64::try_from(names.len()).unwrap_or(u64::MAX);
    note(format!("{} in {folder}; read them with `man -l`", table::count(count, "page")));
    output.json(&Pages { folder, pages: names })
}

/// Each page with the name of its file: `vram.1`, `vram-load.1`, `vram-store-ls.1`.
fn pages() -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let mut cli = Cli::command().propagate_version(true);
    // Gives subcommands their full names, and the options that every command has.
    cli.build();
    let mut waiting = vec![cli];
    let mut pages = Vec::new();
    while let Some(command) = waiting.pop() {
        waiting.extend(command.get_subcommands().filter(|one| is_told(one)).cloned());
        let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
        let mut page = Vec::new();
        Man::new(command)
            .render(&mut page)
            .map_err(|error| Failure::input(format!("cannot make the page of {name}: {error}")))?;
        pages.push((format!("{name}.1"), page));
    }
    pages.sort();
    Ok(pages)
}

/// Whether a command has a page of its own.
fn is_told(command: &Command) -> bool {
    !command.is_hide_set() && command.get_name() != "help"
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_command_has_a_page_that_names_its_options() {
        let pages = pages().unwrap();
        let page = |name: &str| {
            let (_, page) = pages.iter().find(|(found, _)| found == name).unwrap();
            String::from_utf8(page.clone()).unwrap().replace('\\', "")
        };
        assert!(page("vram.1").contains("vram-soak(1)"), "{}", page("vram.1"));
        assert!(page("vram-load.1").contains("--protection"));
        assert!(page("vram-store-ls.1").contains("--model-id"));
        let mut commands = Cli::command();
        commands.build();
        for command in commands.get_subcommands().filter(|one| is_told(one)) {
            page(&format!("vram-{}.1", command.get_name()));
        }
    }

    #[test]
    fn every_shell_has_completions_with_every_command() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for command in Cli::command().get_subcommands() {
                assert!(script.contains(command.get_name()), "{shell}: {}", command.get_name());
            }
        }
    }
}
