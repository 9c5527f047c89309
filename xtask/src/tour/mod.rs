//! `cargo xtask tour`: docs/tour.md, made by running what it shows; with `--check`, compared.

mod mask;
mod script;

use core::fmt::Write as _;
use core::time::Duration;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

use crate::{arguments, shell, workspace};

const PAGE: &str = "docs/tour.md";
const BEGIN: &str = "\
# A tour

A newcomer's first fifteen minutes with the program, without a GPU. The words that it uses: [concepts](concepts.md).

This page is made by `cargo xtask tour`, which runs every command in an empty folder; CI compares it. `#` stands for digits that differ
from run to run, `x` for what follows from a random key. Lines that begin with `$` are what you type. `vram` is the program:
`cargo install --path crates/vram-cli`.
";
/// Behind the digest of the model.
const OF_THE_MODEL: &str = "  model.safetensors";
/// Longer tables are shown in part: their first rows and the last.
const ROWS_MAX: usize = 12;
const FIRST: usize = 4;
/// The longest that a server is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// The command line of this command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Compares the page instead of writing it.
    check: bool,
    /// The folder of a built `vram`, with `examples` in it, instead of one built now.
    programs: Option<PathBuf>,
}

impl Options {
    /// Parses the options.
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { check: false, programs: None };
        while let Some(flag) = args.next() {
            match flag.as_str() {
                "--check" => options.check = true,
                "--programs" => {
                    let folder = args.next().ok_or("--programs takes a folder")?;
                    options.programs = Some(folder.into());
                }
                _ => return Err(arguments::unknown(&flag)),
            }
        }
        Ok(options)
    }

    /// Those of CI.
    pub(crate) const fn for_ci() -> Self {
        Self { check: true, programs: None }
    }
}

/// Runs the tour, and writes or compares the page.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let programs = if let Some(folder) = &options.programs {
        folder.canonicalize().map_err(|error| shown(folder, &error))?
    } else {
        // With the features of `cargo test --workspace`: nothing is built twice.
        let built = ["build", "--workspace", "--examples", "--bin", "vram"];
        shell::cargo(&built).run()?;
        workspace::target_folder()?.join("debug")
    };
    let page = Tour::new(programs)?.page()?;
    if !options.check {
        return fs::write(PAGE, page).map_err(|error| shown(Path::new(PAGE), &error));
    }
    let there = fs::read_to_string(PAGE).map_err(|error| shown(Path::new(PAGE), &error))?;
    match first_difference(&there, &page) {
        None => Ok(()),
        Some(told) => Err(format!("{PAGE}: {told}\n  `cargo xtask tour` makes it anew")),
    }
}

fn shown(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

/// The folder in which everything runs, removed at the end, and the server, which ends with it.
struct Tour {
    folder: PathBuf,
    programs: PathBuf,
    server: Option<Child>,
    /// The digest of the model, once it was seen.
    digest: String,
}

impl Tour {
    fn new(programs: PathBuf) -> Result<Self, String> {
        // Not below `target`, whose path may be too long for a socket.
        let folder = std::env::temp_dir().join(format!("vram-tour-{}", std::process::id()));
        for name in ["", "run"] {
            let folder = folder.join(name);
            fs::DirBuilder::new().mode(0o700).create(&folder).map_err(|e| shown(&folder, &e))?;
        }
        Ok(Self { folder, programs, server: None, digest: String::new() })
    }

    fn page(&mut self) -> Result<String, String> {
        let mut page = BEGIN.to_owned();
        for step in script::STEPS {
            let _ = write!(page, "\n## {}\n\n{}\n\n```console\n", step.heading, step.words);
            for command in step.commands {
                println!("$ {command}");
                let _ = writeln!(page, "$ {command}");
                for line in in_part(&self.output_of(command, step.volatile)?) {
                    // No space at the end of a line.
                    let _ = writeln!(page, "{}", line.trim_end());
                }
            }
            page.push_str("```\n");
        }
        Ok(page)
    }

    /// The lines that a command prints, masked, and its exit code if that is not 0.
    fn output_of(&mut self, line: &str, volatile: mask::Volatile) -> Result<Vec<String>, String> {
        let (is_shown, is_run) = script::MADE_BY;
        let line = line.replacen(is_shown, is_run, 1);
        if let Some(server) = line.strip_suffix(" &") {
            self.start(server)?;
            return Ok(Vec::new());
        }
        let output = self
            .shell(&format!("{{ {line}\n}} 2>&1"))
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("`{line}` cannot be started: {error}"))?;
        if line == script::LAST_WORD {
            self.wait_for_the_end()?;
        }
        let text = String::from_utf8_lossy(&output.stdout);
        if self.digest.is_empty()
            && let Some(digest) = text.lines().find_map(|line| line.strip_suffix(OF_THE_MODEL))
            && mask::is_digest(digest)
        {
            digest.clone_into(&mut self.digest);
        }
        let run = self.folder.join("run").display().to_string();
        let home = self.folder.display().to_string();
        let mut lines: Vec<String> = text
            .lines()
            .map(|line| line.replace(&run, "/run/user/1000").replace(&home, "~"))
            .map(|line| mask::masked(&line, volatile, &self.digest))
            .collect();
        match output.status.code() {
            Some(0) => {}
            Some(code) => lines.push(format!("(exit code {code})")),
            None => return Err(format!("`{line}` was ended by a signal")),
        }
        Ok(lines)
    }

    /// Starts a server, and waits until it answers.
    fn start(&mut self, line: &str) -> Result<(), String> {
        let failed = |error| format!("`{line}` cannot be started: {error}");
        let server = self.shell(&format!("exec {line}")).stdin(Stdio::null()).spawn();
        self.server = Some(server.map_err(failed)?);
        let until = Instant::now().checked_add(PATIENCE);
        loop {
            // Ready when the model is there.
            let ready = self.shell("vram ps 2>&1 | grep -q '^ready'").status().map_err(failed)?;
            if ready.success() {
                return Ok(());
            }
            if until.is_none_or(|until| Instant::now() > until) {
                return Err(format!("`{line}` does not answer after {} s", PATIENCE.as_secs()));
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// A server answers before it has ended, and its log is read next.
    fn wait_for_the_end(&mut self) -> Result<(), String> {
        let Some(server) = &mut self.server else { return Ok(()) };
        let until = Instant::now().checked_add(PATIENCE);
        while server.try_wait().map_err(|error| format!("the server: {error}"))?.is_none() {
            if until.is_none_or(|until| Instant::now() > until) {
                return Err(format!("the server has not ended after {} s", PATIENCE.as_secs()));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn shell(&self, line: &str) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let programs = self.programs.display();
        let mut command = Command::new("sh");
        command.args(["-c", line]).current_dir(&self.folder).env_clear();
        command.env("PATH", format!("{programs}:{programs}/examples:{path}"));
        command.env("HOME", &self.folder).env("XDG_RUNTIME_DIR", self.folder.join("run"));
        command.env("LC_ALL", "C");
        command
    }
}

impl Drop for Tour {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            // It has ended by itself, unless the tour broke off.
            let _killed = server.kill();
            let _ended = server.wait();
        }
        let _removed = fs::remove_dir_all(&self.folder);
    }
}

/// The beginning and the end of each long table: of lines that begin with two spaces.
fn in_part(lines: &[String]) -> Vec<String> {
    let mut shown = Vec::new();
    for rows in lines.chunk_by(|a, b| a.starts_with("  ") == b.starts_with("  ")) {
        let is_long = rows.len() > ROWS_MAX && rows.iter().all(|row| row.starts_with("  "));
        if let Some(((first, rest), true)) =
            rows.split_at_checked(FIRST).map(|both| (both, is_long))
        {
            shown.extend(first.iter().cloned());
            shown.push(format!("  [{} more lines]", rest.len().saturating_sub(1)));
            shown.extend(rest.last().cloned());
        } else {
            shown.extend(rows.iter().cloned());
        }
    }
    shown
}

/// Where two pages differ in more than the widths of columns.
fn first_difference(there: &str, now: &str) -> Option<String> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let (mut old, mut new) = (there.lines(), now.lines());
    for number in 1_usize.. {
        match (old.next(), new.next()) {
            (None, None) => break,
            (a, b) if a.map(words) == b.map(words) => {}
            (a, b) => {
                let say = |line: Option<&str>| line.map_or("(its end)".to_owned(), str::to_owned);
                return Some(format!(
                    "line {number} is\n    {}\n  and now\n    {}",
                    say(a),
                    say(b)
                ));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_strangers_refused() {
        let parse = |text: &str| Options::parse(text.split_whitespace().map(str::to_owned));
        assert_eq!(parse("--check"), Ok(Options::for_ci()));
        let programs = Some(PathBuf::from("x"));
        assert_eq!(parse("--programs x"), Ok(Options { check: false, programs }));
        assert!(parse("--programs").is_err() && parse("--quick").is_err());
    }

    #[test]
    fn widths_of_columns_are_no_difference_and_words_are() {
        assert_eq!(first_difference("a  b\n", "a b\n"), None);
        assert!(first_difference("a\nb\n", "a\nc\n").unwrap().starts_with("line 2 is\n    b\n"));
        assert!(first_difference("a\n", "a\nb\n").unwrap().contains("(its end)"));
        assert!(first_difference("a\nb\n", "a\n").is_some());
    }

    #[test]
    fn a_long_table_is_shown_by_its_beginning_and_its_end() {
        let lines = |count: usize| (0..count).map(|line| format!("  {line}")).collect::<Vec<_>>();
        assert_eq!(in_part(&lines(ROWS_MAX)), lines(ROWS_MAX));
        let all = [vec!["begin".to_owned()], lines(100), vec!["end".to_owned()]].concat();
        let part = in_part(&all);
        assert_eq!(part, ["begin", "  0", "  1", "  2", "  3", "  [95 more lines]", "  99", "end"]);
        assert_eq!(in_part(&vec!["word".to_owned(); 50]).len(), 50);
    }
}
