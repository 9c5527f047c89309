//! P55: with `--json` every command prints one object that fits its schema, failures included.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;
use vram_model::synth::SynthGguf;

use super::schema::check;
use super::served::SCHEMAS;
use crate::support::{Bench, Ran, blake3, flip};

/// Runs a command with `--json`, and checks its one object on standard output.
fn run(bench: &Bench, line: &str, code: i32) -> (String, Value) {
    let args = line.split(' ').chain(["--json"]);
    let ran = bench.run(args).expect_code(code);
    let errors = ran.stderr.lines().filter(|line| line.starts_with("error: ")).count();
    assert_eq!(errors, usize::from(code != 0), "{line}: {}", ran.stderr);
    check(&ran.stdout)
}

#[test]
fn every_command_prints_one_object_that_fits_its_schema() {
    let bench = Bench::new();
    let path = bench.model("m.safetensors", 300);
    let digest = blake3(&fs::read(&path).unwrap()).to_string();
    fs::create_dir(bench.path("folder")).unwrap();
    fs::copy(path, bench.path("folder/m.safetensors")).unwrap();
    SynthGguf::new(1).write_file(bench.path("m.gguf")).unwrap();
    let mut seen = BTreeSet::new();
    for (line, member, value) in [
        ("keygen -o key", "file", Value::from("key")),
        ("load m.safetensors --device host:16MiB", "capacity_restored", true.into()),
        ("load m.safetensors --key-file key --device host:9Mi", "model_id", "m".into()),
        ("devices", "required", Value::Null),
        ("devices --require 0", "required", 0.into()),
        ("seal m.safetensors --key-file key --model-id m -o i", "blake3", digest.as_str().into()),
        ("unseal i --key-file key --model-id m -o back", "blake3", digest.as_str().into()),
        ("inspect i", "authenticated", false.into()),
        ("inspect m.safetensors", "format", "safetensors".into()),
        ("inspect m.gguf", "format", "gguf".into()),
        ("inspect folder", "model_id", "folder".into()),
        ("plan m.safetensors --device host:16MiB", "fits", true.into()),
        ("plan folder --device host:16MiB", "fits", true.into()),
        ("verify i --key-file key --model-id m", "error", Value::Null),
        ("verify i i --key-file key --model-id m", "error", Value::Null),
        (
            "load i --key-file key --model-id m --device host:16MiB",
            "capacity_restored",
            true.into(),
        ),
        ("demo --size 8MiB", "refused", Value::Null),
        (
            "push m.safetensors --model-id m --revision 1 --store s --key-file key",
            "sent_count",
            1.into(),
        ),
        ("store ls s", "store", "s".into()),
        ("store check s", "good", true.into()),
        ("store verify s --keyless", "sound", true.into()),
        ("store gc s", "named_count", 2.into()),
        ("store demo --size 2MiB", "manifest", Value::Null),
        ("pull m@1 --store s --key-file key -o p", "lies", Value::Array(Vec::new())),
        ("load m@1 --store s --key-file key --device host:9MiB", "capacity_restored", true.into()),
        ("demo --size 8MiB --snapshot snapshot", "refused", Value::Null),
        ("view snapshot -o view.html", "gpu_count", 2.into()),
        ("soak --device host:2MiB --for 1s --flip", "verdict", "sound".into()),
        ("bench --quick --size 1MiB", "turns", 3.into()),
        ("completions bash", "shell", "bash".into()),
        ("man --out man", "folder", "man".into()),
    ] {
        let (name, document) = run(&bench, line, 0);
        assert!(line.starts_with(name.split('-').next().unwrap()), "{line}: {name}");
        assert!(value.is_null() || document[member] == value, "{line}: {document}");
        assert!(document.get("error").is_none(), "{document}");
        seen.insert(name);
    }
    // No command was left out, and no schema is of no command.
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/schemas");
    let schemas = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned());
    let schemas = schemas
        // Those of a server and its clients are seen where a server runs.
        .filter(|name| name != "error" && !SCHEMAS.contains(&name.as_str()));
    assert_eq!(schemas.collect::<BTreeSet<_>>(), seen);
}

#[test]
fn a_failure_is_an_object_with_exit_code_code_message_next_step_and_figures() {
    let bench = Bench::new();
    bench.model("m.safetensors", 3000);
    bench.sealed(&[7; 9000], "image", &["--segment", "4KiB"]);
    bench.write("junk", "no image");
    for (line, exit, code, details) in [
        ("load missing --device host:1MiB", 2, "model-file", &["file"][..]),
        ("load m.safetensors --device host:1MiB", 3, "insufficient-vram", &["needed", "room"]),
        ("load m.safetensors --device cuda:0", 4, "no-gpu", &[]),
        ("load m.safetensors --limit name=1", 2, "model-file", &["file"]),
        ("plan m.safetensors --device cuda:0", 4, "no-gpu", &[]),
        ("plan missing", 2, "model-file", &["file"]),
        ("plan junk", 2, "model-file", &["file"]),
        ("verify image --key-file missing --any-model", 2, "key-source", &["file"]),
        ("verify image --key-file key --model-id n", 2, "context-mismatch", &["file"]),
        ("verify junk --key-file key --any-model", 1, "wrong-length", &["file"]),
        ("verify missing --key-file key --any-model", 2, "io", &["file"]),
        ("unseal image --key-file key --any-model -o no/folder", 2, "io", &["file"]),
        ("seal missing --key-file key --model-id m -o i", 2, "source", &["file"]),
        ("keygen -o key", 2, "key-source", &[]),
        ("inspect missing", 2, "io", &["file"]),
        ("keygen -o -", 2, "input", &[]),
        ("load", 2, "usage", &[]),
        ("load m.safetensors --gpu x", 2, "usage", &[]),
        ("frobnicate", 2, "usage", &[]),
        ("seal image", 2, "usage", &[]),
        ("verify image --any-model", 2, "usage", &[]),
    ] {
        let (name, document) = run(&bench, line, exit);
        let error = &document["error"];
        assert_eq!(name, "error", "{line}: {document}");
        assert_eq!(error["exit_code"], exit, "{line}: {document}");
        assert_eq!(error["code"], code, "{line}: {document}");
        assert!(!error["next"].as_str().unwrap_or_default().is_empty(), "{line}: {document}");
        for detail in details {
            assert!(!error["details"][detail].is_null(), "{line}: {detail}: {document}");
        }
    }
}

#[test]
fn a_result_that_is_a_failure_has_both() {
    let bench = Bench::new();
    let image = bench.sealed(&[7; 9000], "image", &["--segment", "4KiB"]);
    let len = fs::read(&image).unwrap().len();
    flip(&image, len - 1);
    let (name, document) = run(&bench, "verify image --key-file key --model-id m", 1);
    assert_eq!((name.as_str(), &document["images"][0]["sound"]), ("verify", &false.into()));
    assert_eq!(document["images"][0]["altered"][0]["segment"], 2);
    assert_eq!(document["error"]["exit_code"], 1);
    assert_eq!(document["error"]["details"]["file"], "image");

    bench.model("m.safetensors", 3000);
    let (name, document) = run(&bench, "plan m.safetensors --device host:1MiB", 3);
    assert_eq!((name.as_str(), &document["fits"]), ("plan", &false.into()));
    assert_eq!(document["error"]["code"], "insufficient-vram");

    let (name, document) = run(&bench, "devices --require 1", 4);
    assert_eq!((name.as_str(), &document["required"]), ("devices", &1.into()));
    assert_eq!(document["error"]["code"], "too-few-devices");
}

/// Standard output carries the content then, and nothing else.
#[test]
fn where_the_content_goes_to_standard_output_the_object_is_the_last_line_of_standard_error() {
    let bench = Bench::new();
    bench.sealed(b"plain", "image", &[]);
    let said = |line: &str, code: i32| {
        let output = bench.command(line.split(' ')).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{line}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        let document = check(stderr.lines().last().unwrap());
        (output.stdout, document)
    };
    let (stdout, (name, document)) =
        said("unseal image --key-file key --model-id m -o - --json", 0);
    assert_eq!((&stdout[..], name.as_str()), (&b"plain"[..], "unseal"));
    assert_eq!(document["content"], "standard output");
    let (stdout, (name, _)) = said("seal content --key-file key --model-id m --json -o -", 0);
    assert_eq!(
        (&stdout[..10], name.as_str()),
        (&fs::read(bench.path("image")).unwrap()[..10], "seal")
    );
    for line in [
        "unseal image --key-file key --model-id n -o - --json",
        "unseal image --key-file key --model-id m --no-such-option -o - --json",
        "unseal --json --output=-",
    ] {
        let (stdout, (name, _)) = said(line, 2);
        assert_eq!((&stdout[..], name.as_str()), (&b""[..], "error"));
    }
}

/// A failure is printed before the command has compared its files, and after.
#[test]
fn no_object_is_written_over_a_file_that_the_command_line_names() {
    let bench = Bench::new();
    bench.sealed(b"plain", "image", &[]);
    for (line, to, code) in [
        ("verify image --key-file key --model-id m", "image", 2),
        ("verify image --key-file missing --model-id m", "image", 2),
        ("verify image --no-such-option", "image", 2),
        ("inspect image", "image", 2),
        ("seal content --key-file=key --model-id m -o new", "key", 2),
        ("load content", "content", 2),
    ] {
        let before = fs::read(bench.path(to)).unwrap();
        let append = fs::File::options().append(true).open(bench.path(to)).unwrap();
        let mut command = bench.command(line.split(' ').chain(["--json"]));
        let ran = Ran::of(command.stdout(append).output().unwrap()).expect_code(code);
        assert_eq!(check(ran.stderr.lines().last().unwrap()).0, "error", "{line}");
        assert_eq!(fs::read(bench.path(to)).unwrap(), before, "{line}");
    }
}

#[test]
fn help_is_help_also_with_json() {
    let bench = Bench::new();
    for args in [&["--help"][..], &["load", "--json", "--help"], &["help", "load"]] {
        let help = bench.run(args).expect_code(0).stdout;
        assert!(help.contains("Usage: vram"), "{help}");
    }
    // A path with characters that JSON has to escape.
    let ran = Ran::of(bench.command(["inspect", "a\"b\n", "--json"]).output().unwrap());
    assert_eq!(check(&ran.stdout).1["error"]["details"]["file"], "a\"b\n");
}
