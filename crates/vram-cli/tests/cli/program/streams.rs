//! Standard streams that are closed or full.

use std::fs::{self, File};

use super::keys::in_shell;
use crate::support::{Bench, Ran};

/// A closed stream is like one that nobody reads: the exit code is the command's own, and no file
/// that is opened later takes its place.
#[test]
fn a_closed_standard_stream_changes_neither_exit_code_nor_files() {
    let bench = Bench::new();
    bench.model("m.safetensors", 300);
    for closed in [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"] {
        let run = |line: &str, code: i32| {
            in_shell(&bench, &format!("exec VRAM {line} {closed}")).expect_code(code)
        };
        run("devices", 0);
        run("devices --json", 0);
        run("load m.safetensors --device host:9MiB", 0);
        run("load missing --device host:9MiB", 2);
        run("frobnicate", 2);
        run("devices --require 1", 4);
        run("keygen -o key", 0);
        assert_eq!(fs::read(bench.path("key")).unwrap().len(), 65, "{closed}");
        run("seal m.safetensors --key-file key --model-id m -o image", 0);
        run("verify image --key-file key --model-id m", 0);
        fs::remove_file(bench.path("key")).unwrap();
    }
}

#[test]
fn a_closed_standard_input_is_not_sealed_as_an_empty_file() {
    let bench = Bench::new();
    bench.key("key");
    for closed in ["<&-", "</dev/null"] {
        let line = format!("exec VRAM seal - --key-file key --model-id m -o image {closed}");
        in_shell(&bench, &line).expect_error(2, &["standard input is closed", "a pipe"]);
    }
    assert_eq!(bench.names(), ["key"]);
    // An empty file and an empty pipe are content.
    let line = "printf '' | VRAM seal - --key-file key --model-id m -o image";
    in_shell(&bench, line).expect_code(0);
}

#[test]
fn a_result_that_cannot_be_written_is_a_failure() {
    let bench = Bench::new();
    for args in [&["devices"][..], &["devices", "--json"]] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let ran = Ran::of(bench.command(args).stdout(full).output().unwrap());
        ran.expect_error(2, &["cannot write the result", "standard output"]);
    }
}
