//! P55: `docs/messages.md` has the failures of the program, as this test provokes them. Each names a
//! next step.
//!
//! `VRAM_BLESS=1` writes the table anew. It has two parts, since a build without CUDA and one with
//! it say different things of devices: each is made by its own build.

use core::fmt::Write as _;
use std::fs;

use super::keys::in_shell;
use super::schema::check;
use vram_residency::model::synth::SynthGguf;
use vram_residency::model::{BlockFormat, GgufValue, TensorFormat};

use crate::images::inspect;
use crate::support::{Bench, flip, set_mode};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/messages.md");
/// The comment before each part.
const PARTS: [&str; 2] = ["<!-- every build -->\n", "<!-- builds with CUDA -->\n"];

/// What a call says of a device that was lost to another one, and what that one says.
const NOT_ASKED: &str = "gpu 0 was lost to driver error 214 (CUDA_ERROR_ECC_UNCORRECTABLE) and was \
                         not asked; reset it first";
const LOST: &str = "driver error 214 (CUDA_ERROR_ECC_UNCORRECTABLE) on gpu 0; the device is \
                    unusable until it is reset";

/// Command lines that fail, as a shell takes them; ` --json` is added at the end.
#[cfg(not(feature = "cuda"))]
const LINES: &[&str] = &[
    // The command line.
    "VRAM frobnicate",
    "VRAM load",
    "VRAM load m.safetensors --no-such-option",
    "VRAM load m.safetensors --gpu x",
    "VRAM load m.safetensors --device gpu:0",
    "VRAM load m.safetensors --device cuda:x",
    "VRAM load m.safetensors --device GPU-",
    "VRAM load m.safetensors --device host:8G",
    "VRAM load m.safetensors --device host:lots",
    "VRAM load m.safetensors --device host:1XB",
    "VRAM load m.safetensors --device host:16777216TiB",
    "VRAM load m.safetensors --device host:1024TiB",
    "VRAM load m.safetensors --expect-digest abc",
    "VRAM load m.safetensors two.safetensors --expect-digest DIGEST",
    "VRAM load m.safetensors --device host:9MiB --gpu 1",
    "VRAM seal content --key-file key --model-id m -o i --segment 1000",
    "VRAM seal content --key-file key --key-env KEY --model-id m -o i",
    "VRAM seal content --model-id m -o i",
    "VRAM verify image --key-file key",
    "VRAM verify image --key-file key --context t",
    "VRAM verify image --key-file key --context t --any-model",
    "VRAM verify image --key-file key --model-id m --any-model",
    // Keys.
    "VRAM verify image --any-model --key-file missing",
    "VRAM verify image --any-model --key-file .",
    "VRAM verify image --any-model --key-file short",
    "VRAM verify image --any-model --key-file long",
    "VRAM verify image --any-model --key-file zeros",
    "VRAM verify image --any-model --key-file grouped",
    "VRAM verify image --any-model --key-file public",
    "VRAM verify image --any-model --key-file public --key-mode group-readable",
    "VRAM verify image --any-model --key-env NO_SUCH_KEY",
    "BAD_KEY=xyz VRAM verify image --any-model --key-env BAD_KEY",
    "VRAM verify image --any-model --key-fd 77",
    "VRAM verify image --any-model --key-fd 2",
    "VRAM verify - --any-model --key-fd 0",
    "VRAM verify image --any-model --key-credential key",
    "CREDENTIALS_DIRECTORY=. VRAM verify image --any-model --key-credential ../key",
    "VRAM verify image --any-model --key-file other",
    "VRAM keygen -o key",
    "VRAM keygen -o -",
    "VRAM keygen -o no/folder",
    // Inputs and outputs.
    "VRAM load missing.safetensors",
    "VRAM load .",
    "VRAM load empty",
    "VRAM load content",
    "VRAM load cut.safetensors",
    "VRAM load m.safetensors m.safetensors",
    "VRAM load model-00001-of-00002.safetensors",
    // What is no model.
    "VRAM load lfs",
    "VRAM load xet",
    "VRAM load html",
    "VRAM load answer",
    "VRAM load gz",
    "VRAM load zip",
    "VRAM load npy",
    "VRAM load pickle",
    "VRAM load hdf5",
    "VRAM load zst",
    // Models in several files, and GGUF.
    "VRAM load two-models",
    "VRAM load no-models",
    "VRAM load holey",
    "VRAM load holey/m-00001-of-00003.safetensors",
    "VRAM load gone.json",
    "VRAM load wrong.json",
    "VRAM load outside.json",
    "VRAM load answer.json",
    "VRAM load old.gguf",
    "VRAM load big-endian.gguf",
    "VRAM load cut.gguf",
    "VRAM load many-keys.gguf",
    "VRAM load part.gguf",
    "VRAM load m.safetensors --limit name=3",
    "VRAM load m.safetensors --limit size=3",
    "VRAM plan m.safetensors --device host:300KiB",
    "VRAM plan m.safetensors --device host:9MiB --gpu 1",
    "VRAM seal two-models --key-file key --model-id m -o i",
    // Digests.
    "VRAM load m.safetensors --expect-digest sha256:DIGEST",
    "VRAM load m.safetensors --digests missing",
    "VRAM load m.safetensors --digests answer",
    "VRAM load m.safetensors --digests empty",
    "VRAM load m.safetensors --digests twice",
    "VRAM load m.safetensors --digests wrong",
    // Images to load, and several.
    "VRAM load image m.safetensors",
    "VRAM load image",
    "VRAM load image --model-id m",
    "VRAM load image --model-id m --key-file key --digests wrong",
    "VRAM load cut --model-id m --key-file key",
    "VRAM load image image --model-id m --key-file key",
    "VRAM load image --model-id n --key-file key",
    "VRAM load m.safetensors --model-id m",
    "VRAM verify - - --key-file key --any-model",
    "VRAM verify image cut missing --key-file key --any-model",
    "VRAM seal missing --key-file key --model-id m -o i",
    "VRAM seal . --key-file key --model-id m -o i",
    "VRAM seal content --key-file key --model-id '' -o i",
    "VRAM seal content --key-file key --model-id m -o content",
    "VRAM seal content --key-file key --model-id m -o other",
    "VRAM seal content --key-file key --model-id m -o .",
    "VRAM seal content --key-file key --model-id m -o no/folder",
    "VRAM seal content --key-file key --model-id m -o /dev/null",
    "VRAM seal content --key-file key --model-id m -o i --metadata missing",
    "VRAM seal content --key-file key --model-id m -o i --metadata much",
    "VRAM unseal image --key-file key --any-model -o image",
    "</dev/null VRAM seal - --key-file key --model-id m -o i",
    ">>content VRAM verify content --key-file key --any-model",
    ">>public VRAM load m.safetensors --key-file public --key-mode group-readable",
    ">>m.safetensors VRAM load m.safetensors",
    ">>wrong VRAM load m.safetensors --digests wrong",
    "VRAM seal content --key-file key --model-id m -o /proc/self/new",
    "VRAM inspect missing",
    "VRAM verify missing --key-file key --any-model",
    "TMPDIR=missing VRAM demo",
    // Images.
    "VRAM verify content --key-file key --any-model",
    "VRAM inspect content",
    "VRAM inspect longer",
    "VRAM verify image --key-file key --model-id n",
    "VRAM verify image --key-file key --any-model --shard-index 1",
    "VRAM verify image --key-file key --any-model --mode authenticated",
    "VRAM verify plain --key-file key --any-model",
    "VRAM verify bad-record --key-file key --any-model",
    "VRAM verify bad-table --key-file key --any-model",
    "VRAM verify bad-padding --key-file key --any-model",
    "VRAM verify bad-content --key-file key --any-model",
    "VRAM unseal bad-content --key-file key --any-model -o back",
    "VRAM verify cut --key-file key --any-model",
    // Room and devices.
    "VRAM load m.safetensors --device host:1MiB",
    "VRAM load m.safetensors --device host:0 --device host:2MiB",
    "VRAM load m.safetensors --device cuda:0",
    "VRAM load m.safetensors --expect-digest DIGEST",
    "VRAM devices --require 1",
    // Stores.
    "VRAM load m.safetensors --mirror store",
    "VRAM load m.safetensors --store store",
    "VRAM load m@1 --store store",
    "VRAM load m@1 n@1 --store store",
    "VRAM load m@1 --store store --key-file key --model-id m",
    "VRAM load m@1 --store store --key-file key --device host:0",
    "VRAM load m@1 --store store --key-file key --device host:1MiB --rank 5",
    "VRAM load m@1 --store bad-store --key-file key --device host:1MiB",
    "VRAM push content --model-id m --revision 1 --store store",
    "VRAM push missing --model-id m --revision 1 --store store --key-file key",
    "VRAM push . --model-id m --revision 1 --store store --key-file key",
    "VRAM push junk --model-id m --revision 1 --store store --key-file key",
    "VRAM push content --model-id m --revision 2 --store store --key-file key --rank 0,x",
    "VRAM push content --model-id m --revision 2 --store store --key-file key --rank 1",
    "VRAM push content --model-id m --revision 2 --store https://user:secret@host/x --key-file key",
    "VRAM push content --model-id m --revision 2 --store 's3://bucket/x?token=secret' --key-file key",
    "VRAM push content --model-id m --revision 2 --store https//user:secret@host/x --key-file key",
    "VRAM push content --model-id m --revision 2 --store s3:/bucket/x --key-file key",
    "VRAM push content --model-id m --revision 2 --store '~/store' --key-file key",
    "VRAM push content --model-id m --revision 2 --store s3:// --key-file key",
    "VRAM push content --model-id m --revision 2 --store abfss://box@account/x --key-file key",
    "VRAM push content --model-id m --revision 2 --store file://host/x --key-file key",
    "VRAM push content --model-id m --revision 2 --store content --key-file key",
    "VRAM pull m --store store --key-file key -o out",
    "VRAM pull m@1 --store store --key-file key -o store/v1/out",
    "VRAM pull m@1 --store store --keyless --manifest DIGEST --context t -o out",
    "VRAM pull m@1 --store store -o out",
    "VRAM pull m@1 --store store --keyless -o out",
    "VRAM pull m@1 --store missing --key-file key -o out",
    "VRAM pull m@9 --store store --key-file key -o out",
    "VRAM pull m@1 --store store --key-file other -o out",
    "VRAM pull m@1 --store store --key-file key --context t -o out",
    "VRAM pull m@1 --store store --key-file key -o s3://bucket/out",
    "VRAM keygen -o file:///key",
    "VRAM pull m@1 --store store --key-file key --manifest DIGEST -o out",
    "VRAM pull m@1 --store bad-store --key-file key -o out",
    "VRAM pull m@1 --store no-images --key-file key -o out",
    "VRAM pull m@1 --store two --key-file key -o out",
    "VRAM pull m@1 --store store --key-file key --cache cache --cache-limit 1KiB",
    "VRAM pull m@1 --store store --key-file key --deadline 0 -o out",
    "VRAM store verify store",
    "VRAM store verify bad-store --keyless",
    "VRAM store verify two --keyless",
    "VRAM store ls two-models",
    "VRAM store gc two-models --delete",
    "VRAM store verify store --keyless --sample 0",
    "VRAM pull m@1 --store store --key-file key -o taken",
    "VRAM pull m@1 --store store --key-file key --cache store",
    "VRAM store ls missing",
    "VRAM store ls bad-manifest",
    "VRAM store gc bad-manifest",
    // For operators.
    "VRAM view missing -o view.html",
    "VRAM view content -o view.html",
    "VRAM view image -o view.html",
    "VRAM view snapshot",
    "VRAM view snapshot -o snapshot",
    "VRAM view snapshot -o .",
    "</dev/null VRAM view - -o view.html",
    ">>snapshot VRAM view snapshot -o view.html",
    "VRAM soak --for 10",
    "VRAM soak --for 0s",
    "VRAM soak --device cuda:0 --flip",
    "VRAM soak --device host:4KiB --for 1s",
    "VRAM bench --size 0",
    "VRAM completions tcsh",
    "VRAM man --out content",
    // Servers and their clients.
    "VRAM serve --config missing.toml",
    "VRAM serve --config empty",
    "VRAM serve --config bad.toml",
    "VRAM serve --config open.toml",
    "VRAM serve --config no-key.toml",
    "VRAM serve --config no-model.toml --check",
    "VRAM serve --config much.toml",
    "VRAM serve --config much.toml --check",
    "VRAM serve --config twice.toml --check",
    "VRAM serve --config bad-token.toml",
    "VRAM serve --config no-listen.toml",
    "VRAM ps --server nowhere",
    "VRAM ps --server unix:/nowhere/serve.sock",
    "VRAM ps --server https://localhost:1 --token-file key",
    "VRAM ctl park m --server 127.0.0.1:1 --token-file missing",
    "VRAM ctl park m --server 127.0.0.1:1 --token-file key",
    "VRAM ctl migrate m",
    "VRAM ctl verify m --server 127.0.0.1:1 --patience soon",
];

/// Command lines that fail for the sake of a GPU; `CUDA` is the driver with the cards after it.
#[cfg(feature = "cuda")]
const LINES: &[&str] = &[
    "VRAM load m.safetensors",
    "CUDA='' VRAM load m.safetensors",
    "CUDA='' VRAM load m.safetensors --device cuda:0",
    "CUDA_SIM_INIT=999 CUDA='capacity=64MiB' VRAM load m.safetensors",
    "CUDA_SIM_INIT=803 CUDA='capacity=64MiB' VRAM load m.safetensors",
    "CUDA='integrated=true' VRAM load m.safetensors",
    "CUDA='capacity=64MiB' VRAM load m.safetensors --device cuda:1",
    "CUDA='capacity=64MiB' VRAM load m.safetensors --device GPU-ffff",
    "CUDA='capacity=64MiB' VRAM load m.safetensors --device 0000:ff:00.0",
    "CUDA='uuid=11;uuid=12' VRAM load m.safetensors --device GPU-0000",
    "CUDA='capacity=64MiB' VRAM devices --require 2",
    "CUDA='capacity=64MiB,foreign=62MiB' VRAM load m.safetensors --device cuda:0",
    "CUDA='capacity=64MiB,fail=in:3:214' VRAM load m.safetensors --device cuda:0",
    "CUDA='capacity=64MiB,fail=alloc:2:2' VRAM load m.safetensors --device cuda:0",
    "CUDA='capacity=64MiB,fail=alloc:2:1' VRAM load m.safetensors --device cuda:0",
];

/// The files that the command lines name.
fn prepare(bench: &Bench) {
    let image = bench.sealed(&[7; 9000], "image", &["--segment", "4KiB"]);
    let sound = fs::read(&image).unwrap();
    let table = usize::try_from(inspect(bench, "image")["table_len"].as_u64().unwrap()).unwrap();
    for (name, at) in [
        ("bad-record", 100),
        ("bad-table", 256),
        ("bad-padding", 256 + table),
        ("bad-content", sound.len() - 1),
    ] {
        flip(&bench.write(name, &sound), at);
    }
    bench.write("cut", &sound[..sound.len() - 100]);
    bench.write("longer", [b'x'; 300]);
    bench.sealed(b"plaintext", "plain", &["--mode", "authenticated"]);
    bench.key("other");
    let key = fs::read(bench.path("key")).unwrap();
    for (name, bytes, mode) in [
        ("short", &b"xyz"[..], 0o600),
        ("long", &[b'0'; 100], 0o600),
        ("zeros", &[0; 32], 0o600),
        ("grouped", &key, 0o440),
        ("public", &key, 0o644),
    ] {
        set_mode(&bench.write(name, bytes), mode);
    }
    bench.write("much", vec![b'x'; (64 << 10) + 1]);
    bench.write("empty", "");
    let model = fs::read(bench.model("m.safetensors", 3000)).unwrap();
    bench.write("cut.safetensors", &model[..model.len() - 1]);
    bench.model("two.safetensors", 300);
    bench.write("model-00001-of-00002.safetensors", &model);
    stores(bench);
    bench.run(["demo", "--size", "2MiB", "--snapshot", "snapshot"]).expect_code(0);
    sets(bench);
    let device = "[[device]]\ndevice = \"host:1MiB\"\n";
    // Nothing of the user who runs this.
    let own = "listen = \"127.0.0.1:0\"\ntoken_file = \"key\"\n";
    for (name, text) in [
        ("bad.toml", "[[device]]\ndevice = \"host:1MiB\"\nbudgt = 1\n".to_owned()),
        ("open.toml", format!("listen = \"0.0.0.0:80\"\n{device}")),
        ("no-key.toml", format!("token_file = \"key\"\n{device}[key]\nfile = \"missing\"\n")),
        ("no-model.toml", format!("{own}{device}[[model]]\nname = \"m\"\npath = \"missing\"\n")),
        ("much.toml", format!("{own}{device}budget = \"2GiB\"\n")),
        ("twice.toml", format!("listen = [\"127.0.0.1:1\", \"127.0.0.1:1\"]\n{device}")),
        ("bad-token.toml", format!("token_file = \"public\"\n{device}")),
        ("no-listen.toml", format!("listen = \"unix:/dev/null\"\ntoken_file = \"key\"\n{device}")),
    ] {
        bench.write(name, text);
    }
    let zeros = "0".repeat(64);
    for (name, text) in [
        (
            "lfs",
            "version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12345\n".to_owned(),
        ),
        ("xet", "# xet version 0\nfilesize = 12345\nhash = 'aa'\n".to_owned()),
        ("html", "<!DOCTYPE html><html><body>401</body></html>".to_owned()),
        ("answer", "{\"error\":\"Repository not found\"}".to_owned()),
        ("twice", format!("{zeros}  m.safetensors\n{}  m.safetensors\n", "1".repeat(64))),
        ("wrong", format!("{zeros}  m.safetensors\n")),
    ] {
        bench.write(name, text);
    }
    for (name, beginning) in [
        ("gz", &b"\x1f\x8b\x08\0"[..]),
        ("zip", b"PK\x03\x04"),
        ("npy", b"\x93NUMPY\x01\0"),
        ("pickle", b"\x80\x02}q\0."),
        ("hdf5", b"\x89HDF\r\n\x1a\n"),
        ("zst", b"\x28\xb5\x2f\xfd"),
    ] {
        bench.write(name, [beginning, &[0; 64]].concat());
    }
}

/// Models in several files, and GGUF files, none of which can be loaded.
fn sets(bench: &Bench) {
    for folder in ["two-models", "no-models", "holey"] {
        fs::create_dir(bench.path(folder)).unwrap();
    }
    for name in ["two-models/a.safetensors", "two-models/b.gguf", "no-models/pytorch_model.bin"] {
        bench.write(name, "");
    }
    bench.write("holey/m-00001-of-00003.safetensors", "");
    let index = |name: &str, map: &str| bench.write(name, format!(r#"{{"weight_map":{map}}}"#));
    index("gone.json", r#"{"a":"gone-1.safetensors","b":"gone-2.safetensors"}"#);
    index("wrong.json", r#"{"a":"two.safetensors"}"#);
    index("outside.json", r#"{"a":"../m.safetensors"}"#);
    bench.write("answer.json", r#"{"error":"Repository not found"}"#);
    let gguf = |name: &str, file: SynthGguf| file.write_file(bench.path(name)).unwrap();
    gguf("old.gguf", SynthGguf::new(1).version(1));
    gguf("big-endian.gguf", SynthGguf::new(1).version(3_u32.swap_bytes()));
    gguf("part.gguf", SynthGguf::new(1).key("split.count", GgufValue::Unsigned(3)));
    let tensor = SynthGguf::new(1).tensor("w", TensorFormat::Block(BlockFormat::Q4K), [2, 256]);
    let bytes = tensor.header().unwrap();
    bench.write("cut.gguf", &bytes);
    bench.write("many-keys.gguf", [&bytes[..16], &[0xff; 40]].concat());
}

/// A good store, and some that are not.
fn stores(bench: &Bench) {
    bench.write("junk", vec![b'j'; 5000]);
    fs::create_dir(bench.path("taken")).unwrap();
    bench.write("taken/00000.vseal", b"of another model");
    let push = "push content --model-id m --revision 1 --key-file key --store";
    for store in ["store", "bad-store", "no-images", "two", "bad-manifest"] {
        bench.run(push.split(' ').chain([store])).expect_code(0);
    }
    flip(&only_file(&bench.path("bad-store/v1/images")), 4100);
    fs::remove_dir_all(bench.path("no-images/v1/images")).unwrap();
    fs::write(only_file(&bench.path("bad-manifest/v1/models")), b"{}").unwrap();
    // A second manifest of the same revision and key, as two pushes that did not see each other make.
    bench
        .run([
            "push",
            "content",
            "--model-id",
            "m",
            "--revision",
            "1",
            "--key-file",
            "key",
            "--fleet",
            "f",
            "--store",
            "other-store",
        ])
        .expect_code(0);
    let other = only_file(&bench.path("other-store/v1/models"));
    let beside = only_file(&bench.path("two/v1/models"));
    fs::copy(&other, beside.with_file_name(other.file_name().unwrap())).unwrap();
}

/// The first file below a folder that is an image or a manifest.
fn only_file(folder: &std::path::Path) -> std::path::PathBuf {
    let mut entries: Vec<_> =
        fs::read_dir(folder).unwrap().map(|one| one.unwrap().path()).collect();
    entries.sort_by_key(|path| path.extension().is_some_and(|it| it == "parts"));
    match &entries[0] {
        path if path.is_dir() => only_file(path),
        path => path.clone(),
    }
}

/// The rows of one part.
fn rows() -> String {
    let bench = Bench::new();
    prepare(&bench);
    let mut rows = String::from("| exit | code | message | what to do next |\n|---|---|---|---|\n");
    let mut seen = Vec::new();
    let mut stuck = Vec::new();
    for line in LINES {
        let zeros = "0".repeat(64);
        let line = line.replace("DIGEST", &zeros);
        // The driver, and its devices.
        let line =
            line.replace("CUDA=", &format!("VRAM_CUDA_DRIVER='{}' CUDA_SIM_DEVICES=", driver()));
        let ran = in_shell(&bench, &format!("{line} --json"));
        let from_stderr = ran.stderr.lines().last().filter(|line| line.starts_with('{'));
        let (_, document) = check(from_stderr.unwrap_or(&ran.stdout));
        let error = &document["error"];
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        assert_eq!(ran.code.map(i64::from), error["exit_code"].as_i64(), "{line}");
        if text("next").is_empty() {
            stuck.push(format!("{line}: {}", text("message")));
        }
        // Which of several threads fails first, and which is told that another did, is chance.
        let tensor = error["details"]["tensor"].as_str().filter(|_| error["code"] == "device-lost");
        let cell = |name: &str| {
            let said = text(name).replace(&driver(), "DRIVER");
            let said =
                tensor.map_or_else(|| said.clone(), |tensor| said.replace(tensor, "tensor NAME"));
            in_cell(&steady(&said.replace(NOT_ASKED, LOST)))
        };
        let row = format!(
            "| {} | {} | {} | {} |",
            error["exit_code"],
            cell("code"),
            cell("message"),
            cell("next"),
        );
        if !seen.contains(&row) {
            writeln!(rows, "{row}").unwrap();
            seen.push(row);
        }
    }
    assert!(stuck.is_empty(), "no next step: {stuck:#?}");
    rows
}

/// The path of the simulated driver; the first part needs none.
fn driver() -> String {
    #[cfg(feature = "cuda")]
    return crate::cuda::driver().display().to_string();
    #[cfg(not(feature = "cuda"))]
    "no driver".to_owned()
}

/// Without what differs from run to run.
fn steady(text: &str) -> String {
    let mut steady = String::new();
    let mut word = String::new();
    for character in text.chars().chain([' ']) {
        if character.is_ascii_alphanumeric() {
            word.push(character);
            continue;
        }
        let hex = word.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        steady.push_str(match word.len() {
            64 if hex => "DIGEST",
            32 if hex => "KEY-ID",
            // The beginning of an image's id, which depends on the key.
            8 if hex && steady.ends_with("image ") => "IMAGE",
            26 if !word.bytes().any(|byte| byte.is_ascii_lowercase()) => "SHARD",
            _ => &word,
        });
        word.clear();
        steady.push(character);
    }
    steady.trim_end().to_owned()
}

/// A text as the cell of a table. Outside of code, `<` would begin an element of HTML.
fn in_cell(text: &str) -> String {
    let parts = text.split('`').enumerate();
    let escaped = parts.map(|(at, part)| match at % 2 {
        0 => part.replace('<', "\\<"),
        _ => part.to_owned(),
    });
    escaped.collect::<Vec<_>>().join("`").replace('|', "\\|").replace('\n', "\\n")
}

#[test]
fn the_table_of_messages_is_what_the_program_says() {
    let part = usize::from(cfg!(feature = "cuda"));
    let page = fs::read_to_string(PAGE).unwrap();
    let (before, rest) = page.split_once(PARTS[part]).unwrap();
    let (committed, after) = rest.split_once("\n\n").unwrap_or((rest, ""));
    let rows = rows();
    if std::env::var_os("VRAM_BLESS").is_some() {
        let end = if after.is_empty() { String::new() } else { format!("\n{after}") };
        fs::write(PAGE, [before, PARTS[part], &rows, &end].concat()).unwrap();
        return;
    }
    for (said, written) in rows.lines().zip(committed.lines()) {
        assert_eq!(said, written, "docs/messages.md is out of date: VRAM_BLESS=1 writes it anew");
    }
    assert_eq!(rows.lines().count(), committed.lines().count(), "VRAM_BLESS=1 writes it anew");
}
