//! CUDA devices of the program, through a driver that it loads: the simulated driver, as a real
//! shared object.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::support::{Bench, Ran, blake3};

/// The simulated driver, which cargo built with this test.
fn driver() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let mut places = test.ancestors().map(|folder| folder.join("libcuda_sim_so.so"));
    places.find(|path| path.is_file()).unwrap()
}

/// The program with these arguments, on a driver with these devices.
fn on(bench: &Bench, devices: &str, args: &[&str]) -> Command {
    let mut command = bench.command(args);
    command
        .env("VRAM_CUDA_DRIVER", driver())
        .env_remove("CUDA_SIM_INIT")
        .env("CUDA_SIM_DEVICES", devices);
    command
}

fn run(bench: &Bench, devices: &str, args: &[&str]) -> Ran {
    Ran::of(on(bench, devices, args).output().unwrap())
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap()
}

#[test]
fn devices_are_listed_with_what_identifies_them() {
    let bench = Bench::new();
    let two = "name=H200,capacity=64MiB;name=A100,capacity=1GiB,ecc=false";
    let listing = json(&run(&bench, two, &["devices", "--json"]).expect_code(0));
    let devices = listing["devices"].as_array().unwrap();
    assert_eq!(devices.len(), 2);
    assert_eq!(devices[0]["device"], "cuda:0");
    assert_eq!(devices[0]["total"], 64 << 20);
    assert_eq!(devices[1]["ecc"], false);
    assert!(devices[1]["name"].as_str().unwrap().contains("A100"));
    assert!(devices[1]["uuid"].as_str().unwrap().starts_with("GPU-"));
    assert_ne!(devices[0]["uuid"], devices[1]["uuid"]);

    let shown = run(&bench, two, &["devices"]).expect_code(0).stdout;
    assert!(shown.contains("cuda:1") && shown.contains("64.0 MiB"), "{shown}");
    assert!(shown.contains("host memory"), "{shown}");
}

#[test]
fn where_there_is_no_cuda_the_reason_is_said_in_words() {
    let bench = Bench::new();
    bench.model("m.safetensors", 300);
    // `support` sets the path of a driver that does not exist.
    let shown = bench.run(["devices"]).expect_code(0).stdout;
    assert!(shown.contains("no CUDA") && shown.contains("/nowhere/"), "{shown}");
    let ran = bench.run(["load", "m.safetensors"]).expect_code(0);
    assert!(ran.stdout.contains("host memory, since"), "{}", ran.stdout);
    let refused = ["load", "m.safetensors", "--device", "cuda:0"];
    bench.run(refused).expect_error(4, &["cuda:0", "install the NVIDIA driver"]);

    let shown = run(&bench, "", &["devices"]).expect_code(0).stdout;
    assert!(shown.contains("found no device"), "{shown}");
}

#[test]
fn a_device_that_cannot_be_used_is_listed_with_the_reason() {
    let bench = Bench::new();
    let shown = run(&bench, "capacity=1GiB,integrated=true", &["devices"]).expect_code(0).stdout;
    assert!(shown.contains("not usable") && shown.contains("integrated"), "{shown}");
}

#[test]
fn a_model_is_loaded_onto_the_device_that_is_named() {
    let bench = Bench::new();
    let path = bench.model("m.safetensors", 3000);
    for protection in ["encrypted", "authenticated"] {
        let args =
            ["load", "--json", "m.safetensors", "--device", "cuda:1", "--protection", protection];
        let ran = run(&bench, "name=A,capacity=64MiB;name=B,capacity=64MiB", &args).expect_code(0);
        let report = json(&ran);
        assert_eq!(report["gpus"].as_array().unwrap().len(), 1);
        assert!(report["gpus"][0]["name"].as_str().unwrap().contains('B'));
        assert_eq!(report["files"][0]["blake3"], blake3(&fs::read(&path).unwrap()).to_string());
        assert_eq!(report["capacity_restored"], true);
    }
    let refused = ["load", "m.safetensors", "--device", "cuda:2"];
    run(&bench, "capacity=64MiB", &refused).expect_error(4, &["no CUDA device 2", "sees 1"]);
}

#[test]
fn without_a_device_every_cuda_device_is_used_and_that_is_said() {
    let bench = Bench::new();
    bench.model("m.safetensors", 3000);
    let ran = run(&bench, "capacity=3MiB;capacity=3MiB", &["load", "m.safetensors"]).expect_code(0);
    assert!(ran.stdout.contains("every CUDA device, 2 in all"), "{}", ran.stdout);
}

#[test]
fn no_more_of_a_card_is_taken_than_the_model_needs() {
    let bench = Bench::new();
    bench.model("m.safetensors", 3000);
    let load = ["load", "--json", "m.safetensors", "--device", "host:16MiB", "--device", "cuda:0"];
    let all = [&load[..], &["--gpu", "1"]].concat();
    let report = json(&run(&bench, "capacity=1GiB,foreign=500MiB", &all).expect_code(0));
    let card = &report["gpus"][1];
    assert_eq!(card["total"], card["used"]);
    assert!(card["total"].as_u64().unwrap() < 4 << 20, "{card}");
}

#[test]
#[cfg(target_os = "linux")]
fn the_program_needs_no_cuda_library_to_start() {
    let ldd = Command::new("ldd").arg(env!("CARGO_BIN_EXE_vram")).output().unwrap();
    let needed = String::from_utf8(ldd.stdout).unwrap();
    assert!(ldd.status.success() && needed.contains("libc.so"), "{needed}");
    for name in ["cuda", "nvidia", "nvrtc", "cudart"] {
        assert!(!needed.contains(name), "{needed}");
    }
}

#[test]
fn a_card_that_is_too_small_is_exit_code_3() {
    let bench = Bench::new();
    bench.model("m.safetensors", 3000);
    let load = ["load", "m.safetensors", "--device", "cuda:0"];
    run(&bench, "capacity=2MiB", &load).expect_error(3, &["no room"]);
    // The card is large enough, but other processes hold most of it.
    run(&bench, "capacity=64MiB,foreign=62MiB", &load).expect_error(3, &["no room"]);
}

#[test]
fn a_card_that_fails_is_exit_code_4_and_one_that_lies_is_1() {
    let bench = Bench::new();
    bench.model("m.safetensors", 3000);
    let load = ["load", "m.safetensors", "--device", "cuda:0"];
    // An uncorrectable memory error while reading, at once and later: sticky, the card is lost.
    for fault in ["fail=out:3:214", "fail=in:3:214", "later=in:3:214"] {
        let card = format!("capacity=64MiB,{fault}");
        run(&bench, &card, &load).expect_error(4, &["gpu 0"]);
    }
    // A copy that returns success and wrong bytes.
    let ran = run(&bench, "capacity=64MiB,flip=in:9:1000", &load).expect_error(1, &["segment"]);
    assert!(ran.stderr.contains("gpu 0") || ran.stderr.contains("altered"), "{}", ran.stderr);
}
