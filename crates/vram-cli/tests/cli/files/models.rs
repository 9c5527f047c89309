//! Model files: what `inspect` shows of them, and sets of which files are missing.

use super::{tensor, write};
use crate::images::inspect;
use crate::support::{Bench, Ran};

#[test]
fn a_part_of_a_sharded_model_is_refused_unless_it_is_asked_for() {
    let bench = Bench::new();
    for number in 1..=3 {
        let name = format!("model-0000{number}-of-00003.safetensors");
        bench.write(&name, tensor(&format!("t{number}"), b"abc"));
    }
    let (one, two, three) = (
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
    );
    bench.run(["load", one, two, three]).expect_code(0);
    bench.run(["load", two]).expect_error(2, &["3 files", one, three, "--partial"]);
    let two_are_missing = bench.run(["load", two]).stderr;
    assert_eq!(two_are_missing.matches("00002-of").count(), 0, "{two_are_missing}");
    bench.run(["load", two, "--partial"]).expect_code(0);
    bench.run(["load", three, one]).expect_error(2, &[two]);
}

#[test]
fn inspect_shows_what_a_model_file_holds() {
    let bench = Bench::new();
    let text = r#"{"__metadata__":{"format":"pt","\u001b[2Jkey":"\u001b[2Jvalue"},"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},"b\u001b[2J":{"dtype":"U8","shape":[],"data_offsets":[12,13]}}"#;
    let mut file = u64::try_from(text.len()).unwrap().to_le_bytes().to_vec();
    file.extend_from_slice(text.as_bytes());
    file.extend_from_slice(&[7; 13]);
    bench.write("m.safetensors", &file);
    let info = inspect(&bench, "m.safetensors");
    assert_eq!(info["format"], "safetensors");
    assert_eq!(info["tensor_count"], 2);
    assert_eq!(info["content_len"], 13);
    assert_eq!(info["file_len"], file.len());
    assert_eq!(info["dtypes"]["BF16"]["len"], 12);
    assert_eq!(info["tensors"][0]["shape"], serde_json::json!([2, 3]));
    assert_eq!(info["tensors"][1]["offset"], file.len() - 1);
    assert_eq!(info["metadata"]["format"], "pt");

    let shown = bench.run(["inspect", "m.safetensors"]).expect_code(0).stdout;
    for part in ["safetensors", "BF16", "[2, 3]", "format: pt", "\\u{1b}[2Jvalue", "2"] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    assert!(!shown.contains('\u{1b}'), "{shown}");

    let input = std::fs::File::open(bench.path("m.safetensors")).unwrap();
    let piped = Ran::of(bench.command(["inspect", "-"]).stdin(input).output().unwrap());
    assert!(piped.expect_code(0).stdout.contains("standard input"));
}

#[test]
fn inspect_shows_a_bounded_part_of_a_large_header_and_counts_the_rest() {
    let bench = Bench::new();
    let entries: Vec<String> = (0..1000)
        .map(|n| {
            format!(r#""{}{n}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#, "n".repeat(500))
        })
        .collect();
    let keys: Vec<String> =
        (0..1000).map(|n| format!(r#""k{n}":"{}""#, "v".repeat(2000))).collect();
    let text = format!(r#"{{"__metadata__":{{{}}},{}}}"#, keys.join(","), entries.join(","));
    let mut file = u64::try_from(text.len()).unwrap().to_le_bytes().to_vec();
    file.extend_from_slice(text.as_bytes());
    bench.write("m.safetensors", &file);
    for args in [&["inspect", "m.safetensors"][..], &["inspect", "m.safetensors", "--json"]] {
        let shown = bench.run(args).expect_code(0).stdout;
        assert!(shown.len() < 100_000, "{}", shown.len());
        assert_eq!(shown.matches("900").count(), 2, "{shown}");
    }
}

#[test]
fn inspect_names_what_a_file_is_that_is_neither() {
    let bench = Bench::new();
    bench.write("gz", [0x1f, 0x8b, 8, 8, 1, 2, 3, 4, 5]);
    bench.write("json", r#"{"error":"Repository not found"}"#);
    bench.write("pointer", "# xet version 0\nfilesize = 12345\n");
    for (name, words) in [("gz", "gzip"), ("json", "Repository not found"), ("pointer", "Xet")] {
        for command in ["inspect", "load"] {
            bench.run([command, name]).expect_error(2, &[name, words]);
        }
    }
    write(&bench, "m");
    bench.run(["inspect", "m"]).expect_code(0);
}
