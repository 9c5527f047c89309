//! Progress and help on terminals of every width.

use core::time::Duration;
use std::fs::File;
use std::io::Read as _;
use std::process::Stdio;
use std::time::Instant;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::support::Bench;

/// What a terminal with so many columns receives on standard error of a demonstration.
fn drawn(bench: &Bench, columns: u16) -> String {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
    let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let end = File::options().read(true).write(true).open(name).unwrap();
    tcsetwinsize(&end, size).unwrap();
    let mut command = bench.command(["demo", "--size", "24MiB"]);
    command.env("TERM", "xterm").stdout(Stdio::null()).stderr(end);
    let mut child = command.spawn().unwrap();
    // The command holds the terminal's other end, and its end is the end of what can be read.
    drop(command);
    let mut text = Vec::new();
    // Once nobody holds the other end, reading fails.
    let _ = File::from(terminal).read_to_end(&mut text);
    assert!(child.wait().unwrap().success());
    String::from_utf8(text).unwrap()
}

/// The lines as they stand on the screen: without escape sequences, cut where the cursor returns.
fn lines(drawn: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut characters = drawn.chars();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => {
                assert_eq!(characters.next(), Some('['), "{drawn:?}");
                let end = characters.by_ref().find(char::is_ascii_alphabetic);
                assert!(end.is_some(), "{drawn:?}");
            }
            '\r' | '\n' => lines.push(String::new()),
            _ => lines.last_mut().unwrap().push(character),
        }
    }
    lines
}

#[test]
fn the_progress_bar_fits_terminals_of_every_width() {
    let bench = Bench::new();
    let started = Instant::now();
    for columns in [1, 2, 3, 4, 13, 40, 80, 132, 500] {
        let drawn = drawn(&bench, columns);
        let lines = lines(&drawn);
        for line in &lines {
            assert!(line.len() <= usize::from(columns), "{columns}: {line:?}");
        }
        let shows = |what: &str| lines.iter().any(|line| line.contains(what));
        assert_eq!(shows("%"), columns >= 4, "{columns}: {drawn:?}");
        assert_eq!(shows("GB/s"), columns >= 80, "{columns}: {drawn:?}");
        assert_eq!(shows("["), columns >= 80, "{columns}: {drawn:?}");
    }
    assert!(started.elapsed() < Duration::from_mins(2));
}

#[test]
fn help_wraps_to_the_width_of_the_terminal() {
    let bench = Bench::new();
    for command in ["", "load", "devices", "demo", "seal", "unseal", "verify", "inspect", "keygen"]
    {
        for (columns, most) in [("60", 60), ("80", 80), ("300", 100)] {
            let args = command.split_terminator(' ').chain(["--help"]);
            let output = bench.command(args).env("COLUMNS", columns).output().unwrap();
            let help = String::from_utf8(output.stdout).unwrap();
            for line in help.lines() {
                assert!(line.chars().count() <= most, "{command} at {columns}: {line}");
            }
        }
    }
}
