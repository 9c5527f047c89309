//! What `vram verify` and `unseal` compare an image with, and what `inspect` shows of it.

use std::process::Command;

use crate::images::inspect;
use crate::support::{Bench, blake3};

#[test]
fn inspect_shows_codes_that_confirm_no_guess_of_model_context_or_metadata() {
    let bench = Bench::new();
    bench.write("meta", "dtype bf16");
    let bound = ["--context", "tenant-1", "--metadata", "meta"];
    bench.sealed(b"x", "image", &bound);
    let info = inspect(&bench, "image");
    let binding = [&1_u64.to_le_bytes()[..], b"m", &8_u64.to_le_bytes(), b"tenant-1"].concat();
    for (name, guess) in
        [("model_and_context_keyed_code", &binding[..]), ("metadata_keyed_code", b"dtype bf16")]
    {
        assert_eq!(info[name].as_str().unwrap().len(), 64);
        assert_ne!(info[name], blake3(guess).to_string());
    }
    // Under another key the same names have other codes.
    bench.key("other");
    let seal = ["seal", "content", "--key-file", "other", "--model-id", "m", "-o", "two"];
    bench.run([&seal[..], &bound].concat()).expect_code(0);
    let there = inspect(&bench, "two");
    for name in ["model_and_context_keyed_code", "metadata_keyed_code"] {
        assert_ne!(info[name], there[name]);
    }
    let shown = bench.run(["inspect", "image"]).expect_code(0).stdout;
    assert!(shown.contains("keyed code") && !shown.contains("tenant-1"), "{shown}");
}

#[test]
fn opening_names_its_model_or_says_that_any_will_do() {
    let bench = Bench::new();
    bench.sealed(b"weights", "image", &["--context", "tenant-1"]);
    for command in [&["verify"][..], &["unseal", "-o", "back"]] {
        let open =
            |more: &[&str]| bench.run([command, &["image", "--key-file", "key"], more].concat());
        open(&[]).expect_error(2, &["--model-id", "--any-model"]);
        open(&["--context", "tenant-1"]).expect_error(2, &["--model-id"]);
        open(&["--model-id", "m"]).expect_error(2, &["context"]);
        open(&["--any-model"]).expect_code(0);
        open(&["--model-id", "m", "--context", "tenant-1"]).expect_code(0);
        open(&["--model-id", "m", "--any-model"]).expect_code(2);
    }
}

#[test]
fn a_plaintext_image_is_opened_only_if_its_mode_is_named() {
    let bench = Bench::new();
    for (sealed, named, other) in [
        ("authenticated", "authenticated", "encrypted"),
        ("encrypted", "encrypted", "authenticated"),
    ] {
        bench.sealed(b"weights", "image", &["--mode", sealed]);
        for command in [&["verify"][..], &["unseal", "-o", "back"]] {
            let open = |more: &[&str]| {
                let base = ["image", "--key-file", "key", "--model-id", "m"];
                bench.run([command, &base, more].concat())
            };
            open(&["--mode", named]).expect_code(0);
            open(&["--mode", "any"]).expect_code(0);
            open(&["--mode", other]).expect_error(2, &["image", "--mode"]);
            if sealed == "authenticated" {
                let words =
                    ["mode authenticated", "plaintext", "--mode authenticated", "--mode any"];
                open(&[]).expect_error(2, &words);
            }
        }
    }
}

#[test]
fn a_model_id_that_is_given_must_match() {
    let bench = Bench::new();
    bench.sealed(b"weights", "image", &[]);
    for command in [&["verify"][..], &["unseal", "-o", "back"]] {
        let right = [command, &["image", "--key-file", "key", "--model-id", "m"]].concat();
        bench.run(right).expect_code(0);
        let wrong = [command, &["image", "--key-file", "key", "--model-id", "n"]].concat();
        bench.run(wrong).expect_error(2, &["image", "model id"]);
    }
}

#[test]
fn context_metadata_index_and_revision_are_compared_when_given() {
    let bench = Bench::new();
    bench.write("meta", "dtype bf16");
    bench.write("meta2", "dtype f32");
    let bound =
        ["--context", "tenant-1", "--metadata", "meta", "--shard-index", "3", "--revision", "4"];
    bench.sealed(b"weights", "image", &bound);
    let verify =
        |more: &[&str]| bench.run([&["verify", "image", "--key-file", "key"], more].concat());
    verify(&["--any-model"]).expect_code(0);
    verify(&[&["--model-id", "m"], &bound[..]].concat()).expect_code(0);
    verify(&["--any-model", "--metadata", "meta", "--shard-index", "3"]).expect_code(0);
    verify(&["--model-id", "m"]).expect_error(2, &["context"]);
    verify(&["--model-id", "m", "--context", "tenant-2"]).expect_error(2, &["context"]);
    verify(&["--context", "tenant-1"]).expect_error(2, &["--model-id"]);
    verify(&["--any-model", "--metadata", "meta2"]).expect_error(2, &["metadata"]);
    verify(&["--any-model", "--metadata", "missing"]).expect_error(2, &["missing"]);
    verify(&["--any-model", "--shard-index", "4"]).expect_error(2, &["shard index"]);
    verify(&["--any-model", "--revision", "5"]).expect_error(2, &["revision"]);
}

/// Nobody writes to the pipe: a read of it would not end.
#[test]
fn metadata_in_a_pipe_is_refused_without_waiting() {
    let bench = Bench::new();
    bench.sealed(b"x", "image", &[]);
    assert!(Command::new("mkfifo").arg(bench.path("pipe")).status().unwrap().success());
    for command in [&["seal", "content", "-o", "new"][..], &["verify", "image"]] {
        let bound = ["--key-file", "key", "--model-id", "m", "--metadata", "pipe"];
        bench.run([command, &bound].concat()).expect_error(2, &["pipe", "not a regular file"]);
    }
    assert_eq!(bench.names(), ["content", "image", "key", "pipe"]);
}

#[test]
fn shard_index_and_revision_are_zero_and_there_is_no_context_unless_given() {
    let bench = Bench::new();
    bench.sealed(b"x", "image", &[]);
    let info = inspect(&bench, "image");
    assert_eq!(info["shard_index"], 0);
    assert_eq!(info["revision"], 0);
    let verify = "verify image --key-file key --model-id m --shard-index 0 --revision 0";
    bench.write("nothing", "");
    let verify = verify.split(' ').chain(["--metadata", "nothing"]);
    bench.run(verify).expect_code(0);
}
