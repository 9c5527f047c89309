//! `vram plan`: what it says is what `vram load` then does, of any kind of model.

use std::fs;

use serde_json::Value;
use vram_model::synth::{LlamaShape, SynthGguf, SynthModel};
use vram_model::{BlockFormat, Dtype, TensorFormat};

use crate::program::schema::check;
use crate::support::{Bench, blake3};

fn json(bench: &Bench, line: &str, code: i32) -> Value {
    let ran = bench.run(line.split(' ').chain(["--json"])).expect_code(code);
    check(&ran.stdout).1
}

/// Bytes taken, room left and holes of each GPU.
fn gpus(document: &Value) -> Vec<(u64, u64, u64)> {
    let number = |value: &Value| value.as_u64().unwrap();
    let gpus = document["gpus"].as_array().unwrap().iter();
    gpus.map(|gpu| match gpu.get("taken") {
        Some(taken) => {
            (number(taken), number(&gpu["room_after"]), number(&gpu["largest_hole_after"]))
        }
        None => (number(&gpu["used"]), number(&gpu["free"]), number(&gpu["largest_hole"])),
    })
    .collect()
}

/// The same devices, the same model: the same answer, and the same figures.
#[test]
fn a_plan_is_what_a_load_then_does() {
    let bench = Bench::new();
    let path = bench.model("m.safetensors", 3000);
    let len = fs::metadata(path).unwrap().len();
    let mut fitting = 0;
    for (first, second) in [
        (len, 0),
        (len - 8000, 12_000),
        (len / 2, len / 2),
        (len / 2, len / 2 + 6000),
        (len / 2 + 1, len),
        (len / 3, len / 3),
        (1, len * 2),
        (700_001, 2_500_003),
        (0, 0),
    ] {
        for more in ["", " --gpu 1", " --gpu 0"] {
            let devices =
                format!("m.safetensors --device host:{first} --device host:{second}{more}");
            let plan = bench.run(format!("plan {devices} --json").split(' '));
            let load = bench.run(format!("load {devices} --json").split(' '));
            assert_eq!(plan.code, load.code, "{devices}: {} {}", plan.stderr, load.stderr);
            let (plan, load) = (check(&plan.stdout).1, check(&load.stdout).1);
            assert_eq!(plan["fits"], load.get("error").is_none(), "{devices}");
            if plan["fits"] == true {
                fitting += 1;
                let load = gpus(&load);
                let index = |gpu: &Value| usize::try_from(gpu["gpu"].as_u64().unwrap()).unwrap();
                let planned = plan["gpus"].as_array().unwrap().iter().map(index);
                for (gpu, figures) in planned.zip(gpus(&plan)) {
                    assert_eq!(figures, load[gpu], "{devices}");
                }
            } else {
                // Both say why in the same words, where the sum is short.
                let both = [&plan["error"], &load["error"]].map(|error| error["code"].clone());
                assert_eq!(both, ["insufficient-vram", "insufficient-vram"]);
                assert_eq!(plan["short"]["missing"].as_u64().unwrap() > 0, {
                    plan["error"]["message"].as_str().unwrap().contains("and there is room for")
                });
            }
        }
    }
    assert!((5..20).contains(&fitting), "{fitting}");
}

#[test]
fn a_plan_needs_headers_alone_and_says_so_where_there_is_nothing_else() {
    let bench = Bench::new();
    let shape = LlamaShape::LLAMA_3_8B;
    let sparse = bench.path("sparse.safetensors");
    SynthModel::llama(&shape, 1).unwrap().write_sparse(&sparse).unwrap();
    let bytes = {
        use std::io::Read as _;
        let mut head = vec![0; 100_000];
        fs::File::open(&sparse).unwrap().read_exact(&mut head).unwrap();
        head
    };
    let header_len =
        usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap() + 8;
    bench.write("header.safetensors", &bytes[..header_len]);
    for name in ["sparse.safetensors", "header.safetensors"] {
        let ran = bench.run(["plan", name, "--device", "host:15GiB", "--json"]).expect_code(0);
        let (_, plan) = check(&ran.stdout);
        assert_eq!(
            (&plan["tensor_count"], &plan["content_len"]),
            (&291.into(), &16_060_522_496_u64.into())
        );
        let missing = plan["files"][0]["missing_len"].as_u64().unwrap();
        let alone = name.starts_with("header");
        assert_eq!(missing > 0, alone);
        assert_eq!(ran.stderr.contains("can be planned, and not loaded"), alone, "{}", ran.stderr);
    }
    bench.run(["load", "header.safetensors"]).expect_error(2, &["cut short"]);
    bench.write("cut.safetensors", &bytes[..header_len - 1]);
    bench.run(["plan", "cut.safetensors"]).expect_error(2, &["header claims"]);
}

#[test]
fn what_does_not_fit_is_told_with_what_is_missing_and_what_would_fit() {
    let bench = Bench::new();
    let shape = LlamaShape::LLAMA_3_8B;
    let sparse = bench.path("m.safetensors");
    SynthModel::llama(&shape, 1).unwrap().write_sparse(&sparse).unwrap();
    let plan = json(&bench, "plan m.safetensors --device host:6GiB", 3);
    assert_eq!(plan["error"]["exit_code"], 3);
    let missing = plan["short"]["missing"].as_u64().unwrap();
    assert_eq!(missing, plan["footprint"].as_u64().unwrap() - (6 << 30));
    let fits = |name: &str| {
        let smaller = plan["smaller"].as_array().unwrap();
        smaller.iter().find(|one| one["format"] == name).map(|one| one["fits"] == true)
    };
    assert_eq!((fits("F16"), fits("Q8_0"), fits("Q6_K")), (None, Some(false), Some(false)));
    assert_eq!((fits("Q5_K"), fits("Q4_K")), (Some(true), Some(true)));
    // The estimate is the size of a real file of that format.
    let quantised = bench.path("q.gguf");
    let format = vram_residency::model::QUANTISATIONS[4];
    SynthGguf::llama(&shape, format, 1).write_sparse(&quantised).unwrap();
    let real = json(&bench, "plan q.gguf --device host:6GiB", 0);
    let wanted = plan["smaller"].as_array().unwrap().iter().find(|one| one["format"] == "Q4_K");
    assert_eq!(real["content_len"], wanted.unwrap()["content_len"]);
    assert_eq!(real["footprint"], wanted.unwrap()["footprint"]);

    let ran = bench.run(["plan", "m.safetensors", "--device", "host:6GiB"]).expect_code(3);
    for words in ["IT DOES NOT FIT", "are missing", "Q4_K", "estimated"] {
        assert!(ran.stdout.contains(words), "{words} is not in {}", ran.stdout);
    }
    // What is missing is not there after another model has gone, either.
    assert!(!ran.stdout.contains("nothing has to go"), "{}", ran.stdout);
    assert!(ran.stderr.contains("error: no room"), "{}", ran.stderr);
    let whole = bench.run(["plan", "m.safetensors", "--device", "host:15GiB"]).expect_code(0);
    assert!(whole.stdout.contains("it fits") && whole.stdout.contains("more; --all lists them"));
    let all = bench.run(["plan", "m.safetensors", "--device", "host:15GiB", "--all"]);
    assert!(all.stdout.contains("lm_head.weight") && !whole.stdout.contains("lm_head.weight"));
}

#[test]
fn the_places_of_a_plan_are_apart_and_hold_every_tensor_whole() {
    let bench = Bench::new();
    SynthModel::llama(&LlamaShape::LLAMA_3_8B, 1)
        .unwrap()
        .write_sparse(bench.path("m.safetensors"))
        .unwrap();
    let plan = json(&bench, "plan m.safetensors --device host:9GiB --device host:8GiB", 0);
    let mut spans: Vec<(u64, u64, u64)> = Vec::new();
    let mut lens = 0;
    for place in plan["places"].as_array().unwrap() {
        let number = |name: &str| place[name].as_u64().unwrap();
        spans.push((number("gpu"), number("offset"), number("offset") + number("footprint")));
        lens += number("len");
    }
    assert_eq!(lens, plan["content_len"]);
    spans.sort_unstable();
    assert!(spans.windows(2).all(|pair| pair[0].0 < pair[1].0 || pair[0].2 <= pair[1].1));
}

#[test]
fn a_gguf_file_is_loaded_byte_for_byte() {
    let bench = Bench::new();
    let path = bench.path("m.gguf");
    let [block, other] = [BlockFormat::Q8_0, BlockFormat::Q4K].map(TensorFormat::Block);
    SynthGguf::new(1)
        .tensor("token_embd.weight", block, [300, 256])
        .tensor("blk.0.attn_norm.weight", TensorFormat::Plain(Dtype::F32), [33])
        .tensor("blk.0.ffn_up.weight", other, [1001, 768])
        .tensor("empty", TensorFormat::Plain(Dtype::F16), [0])
        .tensor("output_norm.weight", TensorFormat::Plain(Dtype::F16), [1])
        .write_file(&path)
        .unwrap();
    // Padding between the tensors, and bytes behind them, are a part of the digest.
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_slice(b"behind");
    fs::write(&path, &bytes).unwrap();
    let digest = blake3(&bytes).to_string();
    let expected = format!("blake3:{digest}");
    for device in ["host:9MiB", "host:900000"] {
        let args = ["load", "m.gguf", "--expect-digest", &expected, "--device", device];
        let ran = bench.run(args).expect_code(0);
        assert!(ran.stdout.contains(&digest), "{}", ran.stdout);
    }
    let sha256 = crate::files::sha256(&bytes).to_string();
    let digits = ["load", "m.gguf", "--expect-digest", &sha256, "--device", "host:9MiB"];
    bench.run(digits).expect_error(2, &["SHA-256"]);
    bench.write("m.gguf", &bytes[..bytes.len() - 5000]);
    bench.run(["load", "m.gguf"]).expect_error(2, &["cut short", "GGUF"]);
}

/// A header that claims more than any plan holds is an error of its file, with the tensor and the figures.
#[test]
fn a_tensor_beyond_all_devices_is_an_error_of_its_file() {
    let bench = Bench::new();
    let elements = 1_u64 << 60;
    let header = |tensors: &[(&str, u64, u64)]| {
        let tensors = tensors.iter().map(|(name, from, to)| {
            format!(
                r#""{name}":{{"dtype":"U8","shape":[{}],"data_offsets":[{from},{to}]}}"#,
                to - from
            )
        });
        let text = format!("{{{}}}", tensors.collect::<Vec<_>>().join(","));
        [&u64::try_from(text.len()).unwrap().to_le_bytes()[..], text.as_bytes()].concat()
    };
    bench.write("huge.safetensors", header(&[("small", 0, 4), ("huge", 4, 4 + elements)]));
    let document = json(&bench, "plan huge.safetensors --device host:1MiB", 2);
    let error = &document["error"];
    assert_eq!(
        (&error["code"], &error["details"]["file"]),
        (&"model-file".into(), &"huge.safetensors".into())
    );
    assert_eq!(
        (&error["details"]["tensor"], &error["details"]["needed"]),
        (&"huge".into(), &(elements + 4).into())
    );
    let message = error["message"].as_str().unwrap();
    for words in ["huge.safetensors", "tensor huge", "1.0 EiB", "1048576"] {
        assert!(message.contains(words), "{words}: {message}");
    }
}
