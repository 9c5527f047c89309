//! Files that another process writes while the program reads them.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::fs::{File, OpenOptions};
use std::path::Path;
use std::time::SystemTime;

use super::tensor;
use crate::support::Bench;

/// Touches a file again and again while `work` runs.
fn while_touched<T>(path: &Path, work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    let file = OpenOptions::new().write(true).open(path).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                file.set_modified(SystemTime::now()).unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let answer = work();
        done.store(true, Ordering::Relaxed);
        answer
    })
}

#[test]
fn a_file_that_is_written_while_it_is_read_is_refused_by_every_command_that_reads_it() {
    let bench = Bench::new();
    // Long enough that it is read for longer than the time between two writes.
    let content = vec![7; 24 << 20];
    let model = bench.write("m.safetensors", tensor("a", &content));
    let image = bench.sealed(&content, "image", &[]);
    let words = ["changed while", "time", "nothing writes it"];
    let refused = |path: &Path, args: &str| {
        let name = path.file_name().unwrap().to_str().unwrap();
        let ran = while_touched(path, || bench.run(args.split(' ')));
        ran.expect_error(1, &[&[name][..], &words].concat());
    };
    refused(&model, "load m.safetensors");
    refused(&model, "seal m.safetensors --key-file key --model-id m -o out");
    refused(&model, "seal m.safetensors --key-file key --model-id m --scope shard -o out");
    refused(&image, "verify image --key-file key --model-id m");
    refused(&image, "unseal image --key-file key --model-id m -o out");
    refused(&image, "load image --key-file key --model-id m");
    let args = "verify - --key-file key --model-id m".split(' ');
    let input = File::open(&image).unwrap();
    let output = while_touched(&image, || bench.command(args).stdin(input).output().unwrap());
    let ran = crate::support::Ran::of(output);
    let ran = ran.expect_error(1, &["standard input changed while"]);
    assert!(!ran.stderr.contains("/dev/fd"), "{}", ran.stderr);
    assert!(!bench.path("out").exists());

    for args in ["load m.safetensors", "verify image --key-file key --model-id m"] {
        bench.run(args.split(' ')).expect_code(0);
    }
}
