//! Several sealed images: checked by one command, and loaded as one model.

use std::fs;

use super::{sha256, write};
use crate::support::{Bench, blake3, flip};

const KEY: [&str; 4] = ["--key-file", "key", "--model-id", "m"];

#[test]
fn several_images_are_all_checked_and_the_exit_code_is_that_of_the_worst() {
    let bench = Bench::new();
    for name in ["a", "b", "c"] {
        bench.sealed(name.repeat(9000).as_bytes(), name, &["--segment", "4KiB"]);
    }
    bench.sealed(b"x", "other", &["--context", "tenant"]);
    let verify = |images: &[&str]| bench.run([&["verify"], images, &KEY].concat());
    let ran = verify(&["a", "b", "c"]).expect_code(0);
    assert_eq!(ran.stdout.lines().filter(|line| line.contains(": sound")).count(), 3);

    // One that is not what is expected, and one that is not there: input.
    let ran = verify(&["a", "other", "missing", "c"]).expect_code(2);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert!(lines[0].starts_with("a: sound") && lines[3].starts_with("c: sound"), "{lines:?}");
    assert!(
        lines[1].starts_with("other: NOT VERIFIED") && lines[1].contains("context"),
        "{lines:?}"
    );
    assert!(lines[2].starts_with("missing: NOT VERIFIED"), "{lines:?}");
    let ran = ran.expect_error_line(&["2 of 4 images", "other, missing"]);
    assert!(!ran.stderr.contains('\u{1b}'));

    // One that was altered is worse, wherever it stands.
    let len = usize::try_from(fs::metadata(bench.path("b")).unwrap().len()).unwrap();
    flip(&bench.path("b"), len - 1);
    for images in [["b", "missing"], ["missing", "b"]] {
        let ran = verify(&images).expect_code(1);
        assert!(ran.stdout.contains("b: altered: segment"), "{}", ran.stdout);
        assert!(ran.stdout.contains("b: NOT SOUND"), "{}", ran.stdout);
        ran.expect_error_line(&["2 of 2 images"]);
    }
    bench.run([&["verify", "-", "-"][..], &KEY].concat()).expect_error(2, &["twice"]);
}

#[test]
fn images_are_loaded_verified_and_freed_as_one_model() {
    let bench = Bench::new();
    let (one, two) = (vec![1; 300_000], vec![2; 5]);
    bench.sealed(&one, "a", &["--shard-index", "0"]);
    bench.sealed(&two, "b", &["--shard-index", "1"]);
    let load = |more: &[&str]| bench.run([&["load", "a", "b"][..], &KEY, more].concat());
    let ran = load(&[]).expect_code(0);
    let lines: Vec<&str> = ran.stdout.lines().rev().take(2).collect();
    assert_eq!(lines, [format!("{}  b", blake3(&two)), format!("{}  a", blake3(&one))]);
    assert!(ran.stdout.contains("sound") && ran.stdout.contains("freed"), "{}", ran.stdout);

    let ran = load(&["--json", "--protection", "authenticated"]).expect_code(0);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["images"][1]["shard_index"], 1);
    assert_eq!(report["images"][0]["content_len"], 300_000);
    assert_eq!(report["protection"], "authenticated");
    assert_eq!(report["capacity_restored"], true);

    let tagged = |bytes: &[u8]| format!("sha256:{}", sha256(bytes));
    let digests = |a: &str, b: &str| load(&["--expect-digest", a, "--expect-digest", b]);
    digests(&tagged(&one), &blake3(&two).to_string()).expect_code(0);
    digests(&tagged(&one), &tagged(&one)).expect_error(1, &["b", "sha256"]);
    digests(&tagged(&one), &sha256(&two).to_string()).expect_error(2, &["write sha256:"]);

    load(&["--device", "host:4KiB"]).expect_error(3, &["--device"]);
    flip(&bench.path("b"), 4096);
    load(&[]).expect_error(1, &["sealed image b"]);
}

#[test]
fn images_need_their_key_and_their_model_and_do_not_mix_with_model_files() {
    let bench = Bench::new();
    bench.sealed(b"weights", "a", &["--context", "tenant"]);
    bench.sealed(b"weights", "plain", &["--mode", "authenticated"]);
    write(&bench, "m.safetensors");
    bench.run(["load", "a"]).expect_error(2, &["--model-id"]);
    bench.run(["load", "a", "--model-id", "m"]).expect_error(2, &["--key-file"]);
    bench.run([&["load", "a"][..], &KEY].concat()).expect_error(2, &["a", "context"]);
    bench.run([&["load", "a", "--context", "tenant"][..], &KEY].concat()).expect_code(0);
    bench.run([&["load", "plain"][..], &KEY].concat()).expect_error(2, &["plain", "--mode"]);
    bench.run([&["load", "plain", "--mode", "any"][..], &KEY].concat()).expect_code(0);
    for files in [["a", "m.safetensors"], ["m.safetensors", "a"]] {
        bench
            .run([&["load"][..], &files, &KEY].concat())
            .expect_error(2, &["a is a sealed image", "m.safetensors is none", "two commands"]);
    }
    bench.run([&["load", "a", "missing"][..], &KEY].concat()).expect_error(2, &["open missing"]);
    bench.write("SUMS", "");
    bench
        .run([&["load", "a", "--digests", "SUMS"][..], &KEY].concat())
        .expect_error(2, &["--digests", "--expect-digest"]);
    // Options of images have no effect on model files, and are refused.
    for option in [["--model-id", "m"], ["--mode", "any"], ["--context", "c"], ["--revision", "1"]]
    {
        bench
            .run([&["load", "m.safetensors"][..], &option].concat())
            .expect_error(2, &[option[0], "sealed images"]);
    }
}
