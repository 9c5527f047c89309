//! What a failure says: the names that the user gave, and what to do next.

use std::fs::{self, File};
use std::path::Path;

use crate::images::inspect;
use crate::support::{Bench, Ran, flip, mode, set_mode};

const VERIFY: [&str; 6] = ["verify", "image", "--key-file", "key", "--model-id", "m"];
const UNSEAL: [&str; 8] = ["unseal", "image", "--key-file", "key", "--model-id", "m", "-o", "back"];

#[test]
fn every_kind_of_damage_says_what_to_do_next() {
    let bench = Bench::new();
    let image = bench.sealed(&[7; 9000], "image", &["--segment", "4KiB"]);
    let table = usize::try_from(inspect(&bench, "image")["table_len"].as_u64().unwrap()).unwrap();
    let sound = fs::read(&image).unwrap();
    for (at, what) in [(100, "record"), (256, "table"), (256 + table, "padding")] {
        flip(&image, at);
        for command in [&VERIFY[..], &UNSEAL] {
            bench.run(command).expect_error(1, &["image", what, "; fetch the image again"]);
        }
        fs::write(&image, &sound).unwrap();
    }
    flip(&image, sound.len() - 1);
    bench.run(UNSEAL).expect_error(1, &["segment 2", "vram verify", "fetch the image again"]);
    bench.run(["inspect", "missing"]).expect_error(2, &["missing", "check the path"]);
}

#[test]
fn standard_input_is_called_that_in_every_failure() {
    let bench = Bench::new();
    let image = bench.sealed(&[7; 9000], "image", &[]);
    flip(&image, 256);
    bench.write("short", "no image");
    for name in ["image", "short"] {
        for (command, code) in [("verify - --key-file key --model-id m", 1), ("inspect -", 2)] {
            let input = File::open(bench.path(name)).unwrap();
            let args = command.split(' ');
            let ran = Ran::of(bench.command(args).stdin(input).output().unwrap());
            // The record of the altered image can be shown.
            if (name, command) != ("image", "inspect -") {
                let ran = ran.expect_error(code, &["standard input"]);
                assert!(!ran.stderr.contains("/dev/fd"), "{}", ran.stderr);
            }
        }
    }
}

#[test]
fn a_key_file_that_cannot_be_used_gets_advice_that_can_be_followed() {
    let bench = Bench::new();
    bench.sealed(b"x", "image", &[]);
    let verify = |key: &str| bench.run(["verify", "image", "--key-file", key, "--model-id", "m"]);
    set_mode(&bench.write("long", vec![b'x'; 1_000_000]), 0o600);
    verify("long").expect_error(2, &["more than 65 bytes"]);
    set_mode(&bench.write("short", "xyz"), 0o600);
    verify("short").expect_error(2, &["this one has 3 bytes"]);
    verify("missing").expect_error(2, &["keygen"]);
    // The kernel's files change no mode.
    assert_ne!(mode(Path::new("/proc/self/maps")) & 0o077, 0);
    let ran = verify("/proc/self/maps").expect_error(2, &["only its owner"]);
    assert!(!ran.stderr.contains("chmod"), "{}", ran.stderr);

    set_mode(&bench.path("key"), 0o000);
    if File::open(bench.path("key")).is_err() {
        let ran = verify("key").expect_error(2, &["key", "check the permissions"]);
        assert!(!ran.stderr.contains("keygen"), "{}", ran.stderr);
    }
}

#[test]
fn no_advice_leads_to_a_command_line_that_is_refused() {
    let bench = Bench::new();
    bench.sealed(b"x", "image", &["--context", "t"]);
    let base = ["verify", "image", "--key-file", "key", "--context", "t"];
    bench.run([&base[..], &["--any-model"]].concat()).expect_error(2, &["instead of --any-model"]);
    bench.run(base).expect_error(2, &["--model-id as well"]);
}

#[test]
fn a_context_or_metadata_beyond_64_kib_is_refused_before_anything_is_written() {
    let bench = Bench::new();
    bench.sealed(b"x", "image", &[]);
    bench.write("meta", vec![b'x'; (64 << 10) + 1]);
    let context = "x".repeat((64 << 10) + 1);
    for long in [["--context", &context], ["--metadata", "meta"]] {
        let seal = ["seal", "content", "--key-file", "key", "--model-id", "m", "-o", "new"];
        bench.run([&seal[..], &long].concat()).expect_error(2, &["longer than 64.0 KiB"]);
        bench.run([&VERIFY[..], &long].concat()).expect_error(2, &["longer than 64.0 KiB"]);
    }
    assert!(!bench.path("new").exists());
}

#[test]
fn verify_says_that_it_compared_the_content() {
    let bench = Bench::new();
    bench.sealed(b"x", "image", &[]);
    let said = bench.run(VERIFY).expect_code(0).stdout;
    assert!(said.starts_with("image: sound, and the content that was sealed: "), "{said}");
}
