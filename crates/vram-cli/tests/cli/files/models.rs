//! Model files: what `inspect` shows of them, and sets of which files are missing.

use vram_residency::model::gguf::{GgufArray, GgufType};
use vram_residency::model::synth::SynthGguf;
use vram_residency::model::{BlockFormat, GgufValue, TensorFormat};

use super::{sha256, tensor, write};
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

    // A command without that option does not name it.
    std::fs::remove_file(bench.path(one)).unwrap();
    let refused = bench.run(["inspect", "."]).expect_error(2, &["3 files", one, "its own name"]);
    assert!(!refused.stderr.contains("--partial"), "{}", refused.stderr);
    // A model file that was cut is one all the same: no other is asked for.
    let cut = std::fs::read(bench.path(two)).unwrap();
    bench.write("cut.safetensors", &cut[..cut.len() - 1]);
    let refused =
        bench.run(["inspect", "cut.safetensors"]).expect_error(2, &["cut short", "fetch"]);
    assert!(!refused.stderr.contains("sealed image"), "{}", refused.stderr);
}

#[test]
fn no_character_that_hides_or_turns_text_comes_out_of_a_table_or_a_message_and_json_keeps_it() {
    let bench = Bench::new();
    let name = "a\u{202e}b\u{200b}c\u{2066}d\u{feff}e\u{ad}";
    let path = format!("m{name}.safetensors");
    bench.write(&path, tensor(name, b"abc"));
    for line in [["inspect", &path], ["plan", &path], ["load", &path]] {
        let ran = bench.run(line).expect_code(0);
        let all = [ran.stdout, ran.stderr].concat();
        assert!(all.contains("\\u{202e}b\\u{200b}c\\u{2066}d\\u{feff}e\\u{ad}"), "{line:?}: {all}");
        assert!(
            !all.contains(|c| "\u{202e}\u{200b}\u{2066}\u{feff}\u{ad}".contains(c)),
            "{line:?}: {all}"
        );
    }
    assert_eq!(inspect(&bench, &path)["tensors"][0]["name"], name);
    let refused = bench.run(["inspect", "none\u{202e}"]).expect_error(2, &["none\\u{202e}"]);
    assert!(!refused.stderr.contains('\u{202e}'));
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
    for (name, words) in [("gz", "gzip"), ("json", "a JSON text"), ("pointer", "Xet")] {
        for command in ["inspect", "load"] {
            bench.run([command, name]).expect_error(2, &[name, words]);
        }
    }
    write(&bench, "m");
    bench.run(["inspect", "m"]).expect_code(0);
}

#[test]
fn a_folder_and_an_index_are_loaded_sealed_and_shown_as_their_files() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("llama")).unwrap();
    for (name, one) in [("1.safetensors", "a"), ("2.safetensors", "b")] {
        bench.write(&format!("llama/{name}"), tensor(one, b"abc"));
    }
    let index = |map: &str| {
        let text = format!(r#"{{"metadata":{{}},"weight_map":{map}}}"#);
        bench.write("llama/model.safetensors.index.json", text);
    };
    let path = "llama/model.safetensors.index.json";
    // Two models, as far as anyone knows.
    bench.run(["load", "llama"]).expect_error(2, &["2 models: 1.safetensors, 2.safetensors"]);
    index(r#"{"a":"1.safetensors","b":"2.safetensors"}"#);
    for name in ["llama", path] {
        let ran = bench.run(["load", name]).expect_code(0);
        assert!(ran.stdout.contains("all 2 shards"), "{}", ran.stdout);
        assert!(ran.stdout.contains("  llama/2.safetensors"), "{}", ran.stdout);
        let shown = bench.run(["inspect", name]).expect_code(0).stdout;
        assert!(shown.contains("llama/1.safetensors: safetensors"), "{shown}");
        let shown = bench.run(["plan", name]).expect_code(0).stdout;
        assert!(shown.contains("it fits: 2 tensors"), "{shown}");
    }
    bench.key("key");
    let push = |what: &str, store: &str| {
        let line = format!("push {what} --model-id m --revision 1 --key-file key --store {store}");
        bench.run(line.split(' '))
    };
    assert!(push("llama", "s").expect_code(0).stdout.contains("2 images sent"));
    assert!(push(path, "t").expect_code(0).stdout.contains("llama/2.safetensors"));
    bench
        .run(["seal", "llama", "--key-file", "key", "--model-id", "m", "-o", "i"])
        .expect_error(2, &["llama", "vram push"]);
    let digests = format!(
        "{}  llama/1.safetensors\n{}  llama/2.safetensors\n",
        sha256(&tensor("a", b"abc")),
        sha256(&tensor("b", b"abc")),
    );
    bench.write("list", digests);
    bench.run(["load", "llama", "--digests", "list"]).expect_code(0);

    index(r#"{"a":"1.safetensors","b":"gone.safetensors"}"#);
    for (command, next) in
        [("load", "--partial"), ("plan", "--partial"), ("inspect", "all of its files")]
    {
        bench.run([command, path]).expect_error(2, &["2 files", "gone.safetensors in llama", next]);
    }
    bench.run(["load", "llama", "--partial"]).expect_code(0);
    push("llama", "s").expect_error(2, &["gone.safetensors"]);
    index(r#"{"a":"2.safetensors","b":"1.safetensors"}"#);
    bench.run(["load", "llama"]).expect_error(2, &["tensor `a`", "name the files themselves"]);
    index(r#"{"a":"../m.safetensors"}"#);
    bench.run(["load", "llama"]).expect_error(2, &["`../m.safetensors`"]);
}

#[test]
fn a_file_without_tensors_is_said_to_be_one() {
    let bench = Bench::new();
    let text = "{}";
    bench.write("m.safetensors", [&2_u64.to_le_bytes()[..], text.as_bytes()].concat());
    SynthGguf::new(1).write_file(bench.path("m.gguf")).unwrap();
    for name in ["m.safetensors", "m.gguf"] {
        let ran = bench.run(["load", name, "--device", "host:4KiB"]).expect_code(0);
        assert!(ran.stderr.contains("without tensors"), "{}", ran.stderr);
        assert!(ran.stdout.contains("no tensors"), "{}", ran.stdout);
        let ran = bench.run(["plan", name, "--device", "host:4KiB"]).expect_code(0);
        assert!(ran.stderr.contains("without tensors"), "{}", ran.stderr);
        let shown = bench.run(["inspect", name]).expect_code(0).stdout;
        assert!(shown.contains("holds no tensor"), "{shown}");
    }
}

#[test]
fn limits_are_raised_by_an_option() {
    let bench = Bench::new();
    let name = "n".repeat(2000);
    bench.write("m.safetensors", tensor(&name, b"abc"));
    let said = ["longer than 1024 bytes, the limit", "--limit"];
    for command in ["load", "plan", "inspect"] {
        bench.run([command, "m.safetensors"]).expect_error(2, &said);
        bench.run([command, "m.safetensors", "--limit", "name=2000"]).expect_code(0);
        let two = ["--limit", "name=4000", "--limit", "header=10"];
        bench
            .run([&[command, "m.safetensors"][..], &two].concat())
            .expect_error(2, &["limit of 10"]);
    }
    for wrong in ["name", "name=x", "size=5", "rank=5000", "header=8G"] {
        bench.run(["load", "m.safetensors", "--limit", wrong]).expect_code(2);
    }
    let keys: Vec<_> =
        (0..100).map(|number| (format!("k{number}"), GgufValue::Bool(true))).collect();
    let file = keys.into_iter().fold(SynthGguf::new(1), |file, (key, value)| file.key(key, value));
    file.write_file(bench.path("m.gguf")).unwrap();
    bench
        .run(["inspect", "m.gguf", "--limit", "keys=99"])
        .expect_error(2, &["claims 100 keys of metadata, more than 99", "--limit"]);
}

#[test]
fn inspect_shows_what_a_gguf_file_holds() {
    let bench = Bench::new();
    let text = |text: &str| GgufValue::Text(text.to_owned());
    let list = GgufArray::of(GgufType::Text, vec![text("\u{1b}[2J<s>"); 3000]);
    SynthGguf::new(1)
        .key("general.name", text("\u{1b}[2Jname"))
        .key("general.file_type", GgufValue::Unsigned(15))
        .key("rope", GgufValue::F32(f32::INFINITY))
        .key("tokenizer.ggml.tokens", GgufValue::Array(list))
        .key("split.no", GgufValue::Unsigned(0))
        .key("split.count", GgufValue::Unsigned(2))
        .tensor("w", TensorFormat::Block(BlockFormat::Q4K), [4, 256])
        .write_file(bench.path("m.gguf"))
        .unwrap();
    let info = inspect(&bench, "m.gguf");
    assert_eq!((&info["format"], &info["version"]), (&"gguf".into(), &3.into()));
    assert_eq!(info["dtypes"]["Q4_K"]["len"], 4 * 144);
    assert_eq!(info["metadata"]["general.file_type"], 15);
    assert_eq!(info["metadata"]["tokenizer.ggml.tokens"]["len"], 3000);
    assert_eq!(info["metadata"]["tokenizer.ggml.tokens"]["first"].as_array().unwrap().len(), 16);
    assert_eq!(info["split"], serde_json::json!({ "number": 0, "count": 2 }));
    let ran = bench.run(["inspect", "m.gguf"]).expect_code(0);
    for part in
        ["GGUF version 3", "1 of 2", "Q4_K", "general.file_type: 15", "\\u{1b}[2Jname", "inf"]
    {
        assert!(ran.stdout.contains(part), "{part} is not in {}", ran.stdout);
    }
    assert!(!ran.stdout.contains('\u{1b}') && ran.stdout.len() < 5000, "{}", ran.stdout);
    let input = std::fs::File::open(bench.path("m.gguf")).unwrap();
    let piped = Ran::of(bench.command(["inspect", "-"]).stdin(input).output().unwrap());
    assert!(piped.expect_code(0).stdout.contains("standard input"));
}
