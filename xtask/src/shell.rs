//! Starting child processes: each is shown before it runs, and its exit status is never ignored.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// The variable that sets the time limit of each test, in seconds (see `vram-testkit`).
pub(crate) const TEST_LIMIT: &str = "VRAM_TEST_LIMIT_SECONDS";

/// A child process to be started.
#[derive(Debug, Clone)]
pub(crate) struct Child {
    program: OsString,
    args: Vec<String>,
    env: Vec<(String, String)>,
}

/// `cargo`, the one that runs this program, with `args`.
pub(crate) fn cargo(args: &[&str]) -> Child {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    Child { program, args: args.iter().map(|&arg| arg.to_owned()).collect(), env: Vec::new() }
}

/// Whether a program of this name stands in a folder of `PATH`.
pub(crate) fn is_there(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// Any program by name, with `args`.
pub(crate) fn program(name: &str, args: &[&str]) -> Child {
    Child {
        program: name.into(),
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        env: Vec::new(),
    }
}

impl Child {
    /// Adds an environment variable for the child alone.
    pub(crate) fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Adds one more argument.
    pub(crate) fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds more arguments.
    pub(crate) fn args(self, args: &[&str]) -> Self {
        args.iter().fold(self, |child, arg| child.arg(*arg))
    }

    /// The command line that runs the same again.
    pub(crate) fn line(&self) -> String {
        let env = self.env.iter().map(|(name, value)| format!("{name}={} ", quoted(value)));
        let name = Path::new(&self.program)
            .file_name()
            .map_or_else(|| self.program.to_string_lossy(), |name| name.to_string_lossy());
        let args = self.args.iter().map(|arg| format!(" {}", quoted(arg)));
        format!("{}{name}{}", env.collect::<String>(), args.collect::<String>())
    }

    /// Runs the child with this terminal's output.
    pub(crate) fn run(&self) -> Result<(), String> {
        println!("$ {}", self.line());
        let status = self
            .command()
            .status()
            .map_err(|error| format!("`{}` cannot be started: {error}", self.line()))?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("{status}\n  repeat with: {}", self.line()))
        }
    }

    /// Runs the child, shows its standard output line by line, and returns it.
    ///
    /// The exit status is returned with the text, so that a caller can count the tests of a failed
    /// run.
    pub(crate) fn run_and_read(&self) -> Result<(String, bool), String> {
        println!("$ {}", self.line());
        let mut child = self
            .command()
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("`{}` cannot be started: {error}", self.line()))?;
        let mut text = String::new();
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).lines() {
                let line = line.map_err(|error| format!("reading from the child: {error}"))?;
                println!("{line}");
                text.push_str(&line);
                text.push('\n');
            }
        }
        let _ = std::io::stdout().flush();
        let status = child.wait().map_err(|error| format!("waiting for the child: {error}"))?;
        Ok((text, status.success()))
    }

    /// Runs the child with all of its output in a file, and returns whether it succeeded.
    pub(crate) fn run_into(&self, file: &Path) -> Result<bool, String> {
        let failed = |error| format!("{}: {error}", file.display());
        let out = File::create(file).map_err(failed)?;
        let errors = out.try_clone().map_err(failed)?;
        println!("$ {}", self.line());
        let status = self.command().stdin(Stdio::null()).stdout(out).stderr(errors).status();
        let status =
            status.map_err(|error| format!("`{}` cannot be started: {error}", self.line()))?;
        Ok(status.success())
    }

    /// Shows the line, runs the child, and returns its standard output.
    pub(crate) fn read_shown(&self) -> Result<String, String> {
        println!("$ {}", self.line());
        self.read()
    }

    /// Runs the child without showing its output, and returns its standard output.
    pub(crate) fn read(&self) -> Result<String, String> {
        let output = self
            .command()
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| format!("`{}` cannot be started: {error}", self.line()))?;
        if !output.status.success() {
            return Err(format!("{}\n  repeat with: {}", output.status, self.line()));
        }
        String::from_utf8(output.stdout).map_err(|error| format!("{}: {error}", self.line()))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// `text` as a POSIX shell would need it.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_can_be_pasted_into_a_shell() {
        let child = program("cargo", &["test", "--", "a b"]).env("RUSTFLAGS", "--cfg loom");
        assert_eq!(child.line(), "RUSTFLAGS='--cfg loom' cargo test -- 'a b'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
    }

    #[test]
    fn a_child_that_fails_is_an_error_that_says_how_to_repeat_it() {
        let error = program("sh", &["-c", "exit 3"]).run().unwrap_err();
        assert!(error.contains('3') && error.contains("repeat with"), "{error}");
        let (text, passed) = program("sh", &["-c", "echo seen; exit 1"]).run_and_read().unwrap();
        assert_eq!((text.as_str(), passed), ("seen\n", false));
    }
}
