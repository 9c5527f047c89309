//! Stopping a run halfway: by a signal that the program catches, and by one that it cannot catch.
//!
//! The files are sparse and large, so that a run lasts long enough to be stopped in the middle.

use core::time::Duration;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Instant;

use crate::support::{Bench, Ran};

/// Longer than any of these tests may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// Plaintext that takes seconds to seal, and no disk space.
const LONG: u64 = 8 << 30;

fn sparse(path: &Path, beginning: &[u8], len: u64) {
    let mut file = File::create(path).unwrap();
    file.write_all(beginning).unwrap();
    file.set_len(len).unwrap();
}

pub(crate) fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// Waits until the child has begun a file in the folder, which may have no name yet.
fn wait_until_it_writes(bench: &Bench, known: &[&str], child: &mut Child) {
    let folder = fs::canonicalize(bench.path(".")).unwrap();
    let known: Vec<_> = known.iter().map(|name| folder.join(name)).collect();
    let files = format!("/proc/{}/fd", child.id());
    let writes = || {
        let links = fs::read_dir(&files).into_iter().flatten().filter_map(Result::ok);
        links
            .filter_map(|link| fs::read_link(link.path()).ok())
            .any(|path| path.starts_with(&folder) && path != folder && !known.contains(&path))
    };
    let started = Instant::now();
    while !writes() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be stopped");
        assert!(started.elapsed() < PATIENCE, "nothing happens");
        std::thread::yield_now();
    }
}

#[test]
fn ctrl_c_during_a_seal_leaves_nothing_and_exits_130() {
    let bench = Bench::new();
    bench.key("key");
    for name in ["-INT", "-TERM"] {
        sparse(&bench.path("long"), b"", LONG);
        let seal = ["seal", "long", "--key-file", "key", "--model-id", "m", "-o", "image"];
        let mut child = bench.command(seal).spawn().unwrap();
        wait_until_it_writes(&bench, &["key", "long"], &mut child);
        signal(&child, name);
        let ran = Ran::of(child.wait_with_output().unwrap());
        ran.expect_error(130, &["interrupted"]);
        assert_eq!(bench.names(), ["key", "long"]);
    }
}

#[test]
fn a_killed_seal_leaves_no_file_under_the_final_name() {
    let bench = Bench::new();
    bench.key("key");
    sparse(&bench.path("long"), b"", LONG);
    let seal = ["seal", "long", "--key-file", "key", "--model-id", "m", "-o", "image"];
    let mut child = bench.command(seal).spawn().unwrap();
    wait_until_it_writes(&bench, &["key", "long"], &mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!bench.path("image").exists());
    // The name of the leftover says what it is, and does not block a later run.
    let left: Vec<String> =
        bench.names().into_iter().filter(|name| name != "key" && name != "long").collect();
    assert!(left.iter().all(|name| name.starts_with('.') && name.ends_with(".partial")));
    bench.write("short", "x");
    let seal = ["seal", "short", "--key-file", "key", "--model-id", "m", "-o", "image"];
    bench.run(seal).expect_code(0);
    // The next run needs no temporary name if the file system can do without, and has left no file.
    bench.run(seal).expect_code(0);
    assert_eq!(bench.names(), ["image", "key", "long", "short"]);
}

#[test]
fn ctrl_c_during_a_load_exits_130() {
    let bench = Bench::new();
    let text = format!(r#"{{"a":{{"dtype":"U8","shape":[{LONG}],"data_offsets":[0,{LONG}]}}}}"#);
    let header = [&u64::try_from(text.len()).unwrap().to_le_bytes()[..], text.as_bytes()].concat();
    let header_len = u64::try_from(header.len()).unwrap();
    sparse(&bench.path("long"), &header, header_len.checked_add(LONG).unwrap());
    let child = bench.command(["load", "long", "--device", "host:16GiB"]).spawn().unwrap();
    // The signal ends the run at any time, before the sealing or in the middle of it.
    std::thread::sleep(Duration::from_millis(300));
    signal(&child, "-INT");
    let ran = Ran::of(child.wait_with_output().unwrap());
    ran.expect_error(130, &["interrupted"]);
    assert_eq!(bench.names(), ["long"]);
}

#[test]
fn a_demonstration_that_is_stopped_or_killed_leaves_nothing() {
    let bench = Bench::new();
    for name in ["-INT", "-KILL"] {
        let mut command = bench.command(["demo", "--size", "4GiB"]);
        let mut child = command.env("TMPDIR", bench.path(".")).spawn().unwrap();
        wait_until_it_writes(&bench, &[], &mut child);
        signal(&child, name);
        let ran = Ran::of(child.wait_with_output().unwrap());
        if name == "-INT" {
            ran.expect_code(130).expect_error_line(&["interrupted"]);
        } else {
            assert_eq!(ran.code, None);
        }
        assert!(bench.names().is_empty(), "{:?}", bench.names());
    }
}
