//! `vram load`, used as a user uses it: sound files, and every kind of unsound file.

use std::fs;
use std::io::Write as _;

use crate::support::{Bench, blake3};
use serde_json::Value;

fn json(bench: &Bench, args: &[&str]) -> Value {
    let ran = bench.run([&["load", "--json"], args].concat()).expect_code(0);
    serde_json::from_str(&ran.stdout).unwrap()
}

#[test]
fn a_sound_model_is_loaded_proven_and_freed() {
    let bench = Bench::new();
    let path = bench.model("m.safetensors", 3000);
    let file = fs::read(&path).unwrap();
    let ran = bench.run(["load", "m.safetensors"]).expect_code(0);
    for part in
        ["shards", "bytes", "used", "free", "largest hole", "GB/s", "seal", "verify", "read"]
    {
        assert!(ran.stdout.contains(part), "{part} is not in {}", ran.stdout);
    }
    // The output names the device used, since the user named none.
    assert!(ran.stdout.contains("no --device was given"), "{}", ran.stdout);
    assert!(ran.stdout.contains("host memory"), "{}", ran.stdout);
    assert!(ran.stdout.contains("free again"), "{}", ran.stdout);
    let last = ran.stdout.lines().last().unwrap();
    assert_eq!(last, format!("{}  m.safetensors", blake3(&file)));
    // Without a terminal there is no bar, and no other note.
    assert_eq!(ran.stderr, "");
    assert_eq!(bench.names(), ["m.safetensors"]);
}

#[test]
fn a_model_that_is_read_past_the_page_cache_is_the_same_model() {
    let bench = Bench::new();
    let path = bench.model("m.safetensors", 3000);
    let ran = bench.run(["load", "--direct", "m.safetensors"]).expect_code(0);
    let last = ran.stdout.lines().last().unwrap();
    assert_eq!(last, format!("{}  m.safetensors", blake3(&fs::read(&path).unwrap())));
    bench.run(["load", "--direct", "m@1", "--store", "s"]).expect_code(2);
    fs::write(bench.path("image"), b"VRSEAL1\0").unwrap();
    bench.run(["load", "--direct", "image"]).expect_error(2, &["--direct is for model files"]);
}

#[test]
fn the_json_report_has_every_figure_and_they_add_up() {
    let bench = Bench::new();
    let path = bench.model("m.safetensors", 3000);
    let report =
        json(&bench, &["m.safetensors", "--device", "host:2MiB", "--device", "host:16MiB"]);
    let number = |value: &Value| value.as_u64().unwrap();

    let file = &report["files"][0];
    assert_eq!(file["path"], "m.safetensors");
    assert_eq!(number(&file["len"]), fs::metadata(&path).unwrap().len());
    assert_eq!(file["blake3"], blake3(&fs::read(&path).unwrap()).to_string());
    assert_eq!(report["protection"], "encrypted");
    assert_eq!(report["model_id"], "m");
    assert_eq!(report["capacity_restored"], true);
    assert_eq!(number(&report["ranges_compared"]), 64);

    let gpus = report["gpus"].as_array().unwrap();
    assert_eq!(gpus.len(), 2);
    let sum = |name: &str| gpus.iter().map(|gpu| number(&gpu[name])).sum::<u64>();
    assert_eq!(sum("content_len"), number(&report["content_len"]));
    assert_eq!(sum("shard_count"), number(&report["shard_count"]));
    assert_eq!(sum("used"), number(&report["freed_len"]));
    for gpu in gpus {
        assert_eq!(number(&gpu["used"]) + number(&gpu["free"]), number(&gpu["total"]));
        assert!(number(&gpu["largest_hole"]) <= number(&gpu["free"]));
    }
    // Most room first.
    assert_eq!(number(&gpus[0]["shard_count"]), 0);
    for phase in ["seal", "verify", "read"] {
        assert!(report[phase]["seconds"].as_f64().unwrap() > 0.0, "{phase}");
        assert!(report[phase]["gb_per_s"].as_f64().unwrap() > 0.0, "{phase}");
    }
}

#[test]
fn several_files_are_one_model_and_each_has_its_digest() {
    let bench = Bench::new();
    let one = tensor_file(r#"{"a":{"dtype":"F32","shape":[1000],"data_offsets":[0,4000]}}"#, 4000);
    let two = tensor_file(r#"{"b":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}"#, 3);
    bench.write("one.safetensors", &one);
    bench.write("two.safetensors", &two);
    let ran = bench.run(["load", "two.safetensors", "one.safetensors"]).expect_code(0);
    let digests: Vec<&str> = ran.stdout.lines().rev().take(2).collect();
    assert_eq!(digests[0], format!("{}  one.safetensors", blake3(&one)));
    assert_eq!(digests[1], format!("{}  two.safetensors", blake3(&two)));
    bench
        .run(["load", "one.safetensors", "one.safetensors"])
        .expect_error(2, &["tensor `a`", "one.safetensors"]);
}

#[test]
fn a_model_that_has_tensors_beyond_one_piece_is_cut_and_proven_whole() {
    let bench = Bench::new();
    // One tensor of 64 MiB and a bit: two pieces.
    let len = (64 << 20) + 5000;
    let text = format!(r#"{{"big":{{"dtype":"U8","shape":[{len}],"data_offsets":[0,{len}]}}}}"#);
    let file = tensor_file(&text, len);
    bench.write("big.safetensors", &file);
    let report = json(&bench, &["big.safetensors", "--protection", "authenticated"]);
    assert_eq!(report["shard_count"], 2);
    assert_eq!(report["protection"], "authenticated");
    assert_eq!(report["files"][0]["blake3"], blake3(&file).to_string());
}

#[test]
fn empty_models_and_empty_tensors_are_fine() {
    let bench = Bench::new();
    for (name, text, len) in [
        ("none", "{}", 0),
        ("zero", r#"{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#, 0),
        (
            "mixed",
            r#"{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
            1,
        ),
    ] {
        let file = tensor_file(text, len);
        bench.write(name, &file);
        let ran = bench.run(["load", name]).expect_code(0);
        assert!(ran.stdout.ends_with(&format!("{}  {name}\n", blake3(&file))), "{}", ran.stdout);
    }
}

#[test]
fn an_expected_digest_is_compared_with_what_lies_in_device_memory() {
    let bench = Bench::new();
    let path = bench.model("m.safetensors", 1000);
    let right = blake3(&fs::read(path).unwrap()).to_string();
    let wrong = blake3(b"another file").to_string();
    bench.run(["load", "m.safetensors", "--expect-digest", &right]).expect_code(0);
    bench
        .run(["load", "m.safetensors", "--expect-digest", &wrong])
        .expect_error(1, &["m.safetensors", &right, &wrong]);
    bench
        .run(["load", "m.safetensors", "--expect-digest", &right, "--expect-digest", &right])
        .expect_error(2, &["2 --expect-digest for 1 files"]);
    let ran = bench.run(["load", "m.safetensors", "--expect-digest", "abc"]).expect_code(2);
    assert!(ran.stderr.contains("--expect-digest"), "{}", ran.stderr);
}

#[test]
fn a_key_file_is_used_and_its_id_shown() {
    let bench = Bench::new();
    bench.model("m.safetensors", 300);
    let id = bench.run(["keygen", "-o", "key"]).stdout[..32].to_owned();
    let report = json(&bench, &["m.safetensors", "--key-file", "key"]);
    assert_eq!(report["key_id"], id);
    crate::support::set_mode(&bench.path("key"), 0o644);
    bench
        .run(["load", "m.safetensors", "--key-file", "key"])
        .expect_error(2, &["0644", "chmod 600"]);
}

#[test]
fn a_gpu_that_is_named_is_the_only_one_used() {
    let bench = Bench::new();
    bench.model("m.safetensors", 300);
    let devices = ["m.safetensors", "--device", "host:4MiB", "--device", "host:2MiB", "--gpu", "1"];
    let report = json(&bench, &devices);
    assert_eq!(report["gpus"][0]["shard_count"], 0);
    assert_eq!(report["gpus"][1]["shard_count"], report["shard_count"]);
    bench
        .run(["load", "m.safetensors", "--gpu", "1"])
        .expect_error(2, &["--gpu 1", "number of devices is 1"]);
}

#[test]
fn no_room_is_exit_code_3_and_says_how_much_would_do() {
    let bench = Bench::new();
    bench.model("m.safetensors", 3000);
    let refused = ["load", "m.safetensors", "--device", "host:1MiB"];
    let ran = bench.run(refused).expect_error(3, &["no room", "--device host:"]);
    // The device that the error suggests is large enough.
    let device = ran.stderr.split("--device ").nth(1).unwrap();
    let device = device.split_whitespace().next().unwrap();
    bench.run(["load", "m.safetensors", "--device", device]).expect_code(0);
    bench
        .run(["load", "m.safetensors", "--device", "host:0", "--device", "host:2MiB"])
        .expect_error(3, &["no room"]);
}

#[test]
fn a_device_that_is_not_there_is_exit_code_4() {
    let bench = Bench::new();
    bench.model("m.safetensors", 300);
    bench
        .run(["load", "m.safetensors", "--device", "cuda:0"])
        .expect_error(4, &["cuda:0", "host:8GiB"]);
}

#[test]
fn a_device_that_means_nothing_is_a_usage_error() {
    let bench = Bench::new();
    bench.model("m.safetensors", 300);
    for device in ["gpu:0", "host:", "host:lots", "cuda:x", "", "host:99999999999999999999"] {
        let ran = bench.run(["load", "m.safetensors", "--device", device]).expect_code(2);
        assert!(ran.stderr.contains("--device"), "{}", ran.stderr);
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    }
    // Larger than any ledger: also a usage error, and no crash.
    let ran = bench.run(["load", "m.safetensors", "--device", "host:16777215TiB"]);
    assert!(matches!(ran.code, Some(2..=4)), "{:?} {}", ran.code, ran.stderr);
    assert!(ran.stderr.starts_with("error: "), "{}", ran.stderr);
}

#[test]
fn a_file_that_is_no_sound_model_is_refused_in_one_line() {
    let bench = Bench::new();
    let sound = tensor_file(r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#, 4);
    let cases: [(&str, Vec<u8>, &str); 12] = [
        ("empty", vec![], "0 bytes"),
        ("short", vec![1, 2, 3], "3 bytes"),
        ("text", b"this is not a model file at all".to_vec(), "a plain text"),
        ("zeros", vec![0; 100], "begin with"),
        ("ones", vec![0xff; 100], "header claims"),
        ("gguf", b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0".to_vec(), "GGUF"),
        ("zip", b"PK\x03\x04\x14\0\0\0\x08\0".to_vec(), "zip archive"),
        ("index.json", br#"{"weight_map": {"a": "b"}}"#.to_vec(), "b in ., as"),
        ("lfs", b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "git lfs pull"),
        ("cut", sound[..sound.len() - 1].to_vec(), "cut short"),
        ("grown", [&sound[..], b"x"].concat(), "goes on after"),
        (
            "lies",
            tensor_file(r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}"#, 8),
            "no tensor",
        ),
    ];
    for (name, bytes, words) in cases {
        bench.write(name, bytes);
        bench.run(["load", name]).expect_error(2, &[name, words]);
    }
    for name in ["missing.safetensors", ".", "/dev/zero"] {
        bench.run(["load", name]).expect_error(2, &[name]);
    }
    // One bad file among good ones: the program loads none.
    bench.write("good", &sound);
    bench.run(["load", "good", "cut"]).expect_error(2, &["cut"]);
}

#[test]
fn a_name_in_a_file_cannot_write_to_the_terminal() {
    let bench = Bench::new();
    let text = "{\"\\u001b[2Jx\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,3]}}";
    bench.write("evil", tensor_file(text, 3));
    let ran = bench.run(["load", "evil"]).expect_error(2, &["\\u{1b}[2Jx"]);
    assert!(!ran.stderr.contains('\u{1b}'));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let bench = Bench::new();
    bench.model("m.safetensors", 300);
    let mut child = bench.command(["load", "m.safetensors"]).spawn().unwrap();
    // The reader closes its end before the first line is written.
    drop(child.stdout.take());
    let ran = crate::support::Ran::of(child.wait_with_output().unwrap());
    let ran = ran.expect_code(0);
    assert_eq!(ran.stderr, "");
}

#[test]
fn a_full_disk_under_standard_output_is_told() {
    let bench = Bench::new();
    bench.model("m.safetensors", 300);
    let Ok(full) = fs::OpenOptions::new().write(true).open("/dev/full") else {
        eprintln!("skipped: no /dev/full here");
        return;
    };
    let output = bench.command(["load", "m.safetensors"]).stdout(full).output().unwrap();
    crate::support::Ran::of(output).expect_code(2).expect_error_line(&["result"]);
}

/// A file with the given header text and `len` data bytes, each its position.
fn tensor_file(text: &str, len: usize) -> Vec<u8> {
    let mut bytes = u64::try_from(text.len()).unwrap().to_le_bytes().to_vec();
    bytes.write_all(text.as_bytes()).unwrap();
    bytes.extend((0_u32..).flat_map(u32::to_le_bytes).take(len));
    bytes
}
