//! Standard streams that are closed or full.

use std::fs::{self, File};

use super::keys::in_shell;
use super::schema::check;
use crate::support::{Bench, Ran, blake3};

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

/// Standard output is opened to append to a file that the call reads: as `vram … >>key`.
#[test]
fn a_result_is_not_written_over_what_the_call_reads() {
    let bench = Bench::new();
    bench.model("m.safetensors", 300);
    bench.sealed(&[7; 9000], "image", &[]);
    let digest = blake3(&fs::read(bench.path("m.safetensors")).unwrap());
    bench.write("sums", format!("blake3:{digest}  m.safetensors\n"));
    for (line, kept) in [
        ("VRAM load m.safetensors --key-file key >>key", "key"),
        ("VRAM load m.safetensors --key-file key --json >>key", "key"),
        ("VRAM load m.safetensors >>m.safetensors", "m.safetensors"),
        ("VRAM load m.safetensors --digests sums >>sums", "sums"),
        ("VRAM load image --model-id m --key-file key >>key", "key"),
        ("VRAM load image --model-id m --key-fd 3 3<key >>key", "key"),
        ("VRAM load m.safetensors --key-fd 3 --json 3<key >>key", "key"),
        ("VRAM seal m.safetensors --model-id m --key-fd 3 -o x --json 3<key >>key", "key"),
        ("VRAM verify image --any-model --key-fd 3 --json 3<key >>key", "key"),
        (
            "VRAM seal - --key-file key --model-id m -o x --json <m.safetensors >>m.safetensors",
            "m.safetensors",
        ),
    ] {
        let before = fs::read(bench.path(kept)).unwrap();
        let ran = in_shell(&bench, line);
        assert!(fs::read(bench.path(kept)).unwrap() == before, "{line}: {}", ran.stderr);
        assert!(ran.stderr.contains("would be written over itself"), "{line}: {}", ran.stderr);
    }
}

#[test]
fn a_name_forges_no_line_and_sends_nothing_to_the_terminal() {
    let bench = Bench::new();
    let name = "good.vseal: sound\nzz\u{1b}[31m.vseal";
    let image = fs::read(bench.sealed(&[7; 9000], "image", &[])).unwrap();
    bench.write(name, &image);
    bench.write("cut\nsound", &image[..300]);
    for args in [
        &["verify", name, "cut\nsound", "--key-file", "key", "--any-model"][..],
        &["inspect", name],
        &["load", name, "--key-file", "key", "--model-id", "m", "--device", "host:1MiB"],
        &["unseal", name, "--key-file", "key", "--model-id", "m", "-o", "a\u{1b}b"],
    ] {
        let ran = bench.run(args);
        for text in [&ran.stdout, &ran.stderr] {
            assert!(!text.contains('\u{1b}'), "{args:?}: {text}");
            assert!(!text.lines().any(|line| line.starts_with("zz") || line == "sound"), "{text}");
        }
    }
}

#[test]
fn of_several_images_each_that_could_not_be_checked_says_why() {
    let bench = Bench::new();
    let image = fs::read(bench.sealed(&[7; 9000], "image", &[])).unwrap();
    bench.write("cut", &image[..image.len() - 100]);
    let args = ["verify", "image", "cut", "missing", "--key-file", "key", "--any-model", "--json"];
    let (_, document) = check(&bench.run(args).expect_code(1).stdout);
    assert_eq!(document["images"].as_array().unwrap().len(), 1);
    let codes = document["not_checked"].as_array().unwrap().iter().map(|one| {
        (
            one["image"].as_str().unwrap().to_owned(),
            one["error"]["code"].as_str().unwrap().to_owned(),
        )
    });
    let expected = [("cut", "wrong-length"), ("missing", "io")];
    let expected = expected.map(|(name, code)| (name.to_owned(), code.to_owned()));
    assert_eq!(codes.collect::<Vec<_>>(), expected);
    // A cut image is told as that by `load` too, and not as want of room.
    let load = ["load", "cut", "--key-file", "key", "--model-id", "m", "--device", "host:1MiB"];
    bench.run(load).expect_error(1, &["cut short"]);
}
