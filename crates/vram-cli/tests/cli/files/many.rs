//! More files than a process may have open, and longer paths than a line.

use std::process::{Command, Stdio};

use super::tensor;
use crate::support::{Bench, Ran};

/// Runs the program in the folder with at most `limit` open files, which it cannot raise.
fn limited(bench: &Bench, limit: u32, args: &[String]) -> Ran {
    let program = bench.command(args);
    let output = Command::new("sh")
        .args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\"")])
        .arg(program.get_program())
        .args(args)
        .current_dir(bench.path("."))
        .env("VRAM_CUDA_DRIVER", "/nowhere/libcuda.so.1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Ran::of(output)
}

/// Writes `count` files, and returns the command that loads them.
fn load(bench: &Bench, count: usize) -> Vec<String> {
    let names = (0..count).map(|number| format!("part{number}"));
    let names: Vec<String> = names.collect();
    for name in &names {
        bench.write(name, tensor(name, name.as_bytes()));
    }
    core::iter::once("load".to_owned()).chain(names).collect()
}

#[test]
fn a_model_of_more_files_than_may_be_open_is_loaded() {
    let bench = Bench::new();
    // Each thread has the file that it reads open as well, so the limit leaves room for some.
    let args = load(&bench, 200);
    let ran = limited(&bench, 96, &args).expect_code(0);
    assert_eq!(ran.stdout.lines().filter(|line| line.contains("  part")).count(), 200);
}

#[test]
fn a_model_of_1500_files_is_loaded_under_the_usual_limit() {
    let bench = Bench::new();
    let args = load(&bench, 1500);
    limited(&bench, 1024, &args).expect_code(0);
}

#[test]
fn a_path_is_shown_whole_in_every_failure() {
    let bench = Bench::new();
    let folder = ".cache/huggingface/hub/models--meta-llama--Meta-Llama-3-8B-Instruct/snapshots/\
                  5f0b02c75b57c5855da9ae460ce51323ea669d8a";
    std::fs::create_dir_all(bench.path(folder)).unwrap();
    let at = |name: &str| format!("{folder}/{name}");
    bench.write(&at("model.safetensors"), [9, 0, 0, 0, 0, 0, 0, 0, b'{']);
    bench.write(&at("text"), "Access is restricted.\nsecond line");
    bench.key("key");
    let long = |name: &str| at(name);
    for (command, name, code) in [
        ("load", "model.safetensors", 2),
        ("load", "text", 2),
        ("load", "missing", 2),
        ("inspect", "model.safetensors", 2),
        ("inspect", "missing", 2),
        ("verify --key-file key --model-id m", "model.safetensors", 1),
    ] {
        let path = long(name);
        let args: Vec<&str> = command.split(' ').chain([path.as_str()]).collect();
        bench.run(args).expect_error(code, &[&path]);
    }
    let ran = bench.run(["load", &long("text")]).expect_error(2, &["a plain text"]);
    assert!(!ran.stderr.contains("restricted"), "it may be a secret: {}", ran.stderr);
    // A name with a line break and a terminal escape in it.
    bench.write("a\n\u{1b}[2Jb", "x");
    let ran = bench.run(["load", "a\n\u{1b}[2Jb"]).expect_code(2);
    assert_eq!(ran.stderr.lines().count(), 1);
    assert!(!ran.stderr.contains('\u{1b}'), "{}", ran.stderr);
}
