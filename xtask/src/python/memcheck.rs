//! `cargo xtask python --valgrind`: the stress tests under valgrind's memcheck. Python itself and the
//! loader of shared objects give reports; those count in which one of the innermost frames is Rust.

use std::fs;
use std::path::Path;

use crate::shell::{self, Child};

/// How many of the innermost frames are looked at: a copy or a comparison of libc stands above ours.
const FRAMES: usize = 4;

/// Puts valgrind in front of a command of Python.
pub(super) fn under(command: &[&str], log: &Path) -> Result<Child, String> {
    let version = shell::program("valgrind", &["--version"]).read();
    version.map_err(|error| format!("valgrind does not start ({error}): install it"))?;
    let mut arguments = vec!["--tool=memcheck", "--leak-check=no", "--num-callers=30"];
    let log = format!("--log-file={}", log.display());
    arguments.push(&log);
    arguments.extend_from_slice(command);
    // Its own allocator would hide what is freed.
    Ok(shell::program("valgrind", &arguments).env("PYTHONMALLOC", "malloc"))
}

/// Reads the log of a run that ended.
pub(super) fn judge(log: &Path) -> Result<(), String> {
    let text = fs::read_to_string(log).map_err(|error| format!("{}: {error}", log.display()))?;
    let (ours, others) = reports(&text)?;
    println!("memcheck: {others} reports of Python and the loader, {} of Rust", ours.len());
    if ours.is_empty() {
        return Ok(());
    }
    for report in &ours {
        println!("\n{report}");
    }
    Err(format!("memcheck has {} reports with Rust innermost: {}", ours.len(), log.display()))
}

/// The reports with Rust among the innermost frames, and the number of all others.
fn reports(log: &str) -> Result<(Vec<String>, usize), String> {
    if !log.contains("ERROR SUMMARY:") {
        return Err("the log of valgrind has no end: it was stopped".to_owned());
    }
    let bare = |line: &str| line.splitn(3, "==").nth(2).unwrap_or(line).trim().to_owned();
    let lines: Vec<String> = log.lines().map(bare).collect();
    let (mut ours, mut others) = (Vec::new(), 0_usize);
    for report in lines.split(String::is_empty) {
        // The first group of frames is that of the access; what follows tells of the block.
        let stack = report.iter().skip_while(|line| !line.starts_with("at 0x"));
        let innermost: Vec<_> = stack
            .take_while(|line| line.starts_with("at 0x") || line.starts_with("by 0x"))
            .take(FRAMES)
            .collect();
        if innermost.iter().any(|frame| frame.contains(".rs:")) {
            ours.push(report.join("\n"));
        } else if !innermost.is_empty() {
            others = others.saturating_add(1);
        }
    }
    Ok((ours, others))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_if_rust_is_innermost() {
        let python = "==7== Use of uninitialised value of size 8\n\
                      ==7==    at 0x1: Py_INCREF (object.h:502)\n\
                      ==7==    by 0x2: f (a.c:1)\n==7==    by 0x3: g (a.c:2)\n\
                      ==7==    by 0x4: h (a.c:3)\n==7==    by 0x5: _vram::make (errors.rs:74)\n==7== \n";
        let rust = "==7== Invalid read of size 8\n\
                    ==7==    at 0x1: memmove (vg_replace_strmem.c:1)\n\
                    ==7==    by 0x2: _vram::raw::copy (raw.rs:7)\n\
                    ==7==  Address 0x9 is 0 bytes inside a block of size 8 free'd\n\
                    ==7==    at 0x3: free (vg_replace_malloc.c:1)\n==7== \n";
        let end = "==7== ERROR SUMMARY: 2 errors from 2 contexts\n";
        let (ours, others) = reports(&[python, rust, python, end].concat()).unwrap();
        assert_eq!((ours.len(), others), (1, 2));
        assert!(ours[0].starts_with("Invalid read") && ours[0].contains("free'd"), "{}", ours[0]);
        assert!(reports(python).is_err(), "a log without an end");
    }
}
