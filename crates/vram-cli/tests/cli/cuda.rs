//! CUDA devices of the program, through a driver that it loads: the simulated driver, as a real
//! shared object.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::program::schema::check;
use crate::support::{Bench, Ran, blake3};

/// The simulated driver, which cargo built with this test.
pub(crate) fn driver() -> PathBuf {
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
    let refused = ["load", "m.safetensors", "--device", "cuda:0"];
    bench.run(refused).expect_error(4, &["cuda:0", "install the NVIDIA driver"]);

    let shown = run(&bench, "", &["devices"]).expect_code(0).stdout;
    assert!(shown.contains("found no device"), "{shown}");
}

/// P57. A check of a GPU that passes on host memory would be worse than none.
#[test]
fn without_a_usable_card_nothing_is_loaded_into_host_memory_unless_it_is_named() {
    let bench = Bench::new();
    bench.model("m.safetensors", 300);
    let load = ["load", "m.safetensors"];
    let named = ["load", "m.safetensors", "--device", "host:16MiB"];
    // No driver; a driver without a device; a driver that does not start; a card without memory of
    // its own; a card whose every allocation fails.
    let (integrated, failing) = ("integrated=true", "fail=alloc:1:999");
    for (devices, init, reason) in [
        (None, None, "/nowhere/"),
        (Some(""), None, "found no device"),
        (Some("capacity=64MiB"), Some("999"), "would not start"),
        (Some(integrated), None, "integrated"),
        (Some(failing), None, "999"),
    ] {
        let run = |args: &[&str]| {
            let mut command =
                devices.map_or_else(|| bench.command(args), |some| on(&bench, some, args));
            if let Some(code) = init {
                command.env("CUDA_SIM_INIT", code);
            }
            Ran::of(command.output().unwrap())
        };
        let words = ["no --device was given", reason, "vram devices", "--device host:"];
        let ran = run(&load).expect_error(4, &words);
        let json = run(&[&load[..], &["--json"]].concat()).expect_code(4);
        assert_eq!(check(&json.stdout).1["error"]["code"], "no-gpu");
        let hinted = ran.stderr.split("--device host:").nth(1).unwrap().trim();
        run(&[&load[..], &["--device", &format!("host:{hinted}")]].concat()).expect_code(0);
        run(&named).expect_code(0);
        run(&["devices", "--require", "1"]).expect_code(4);
        run(&["devices"]).expect_code(0);
    }
    // One card of two: it is used, and what is left out is said.
    let ran = run(&bench, "capacity=64MiB;integrated=true", &load).expect_code(0);
    assert!(ran.stderr.contains("not used: CUDA device 1"), "{}", ran.stderr);
}

#[test]
fn as_many_cards_as_are_required_are_there_or_it_is_exit_code_4() {
    let bench = Bench::new();
    let two = "capacity=64MiB;capacity=64MiB;integrated=true";
    for (required, code) in [("0", 0), ("1", 0), ("2", 0), ("3", 4), ("4294967295", 4)] {
        let ran = run(&bench, two, &["devices", "--require", required]).expect_code(code);
        assert!(ran.stdout.contains("cuda:1"), "{}", ran.stdout);
        if code == 4 {
            let ran =
                ran.expect_error_line(&["2 CUDA devices can be used", required, "nvidia-smi"]);
            assert!(ran.stderr.contains("integrated"), "{}", ran.stderr);
        }
        let ran = run(&bench, two, &["devices", "--json", "--require", required]);
        assert_eq!(check(&ran.stdout).1["error"].is_null(), code == 0);
    }
}

#[test]
fn a_card_is_named_by_uuid_the_beginning_of_one_or_bus() {
    let bench = Bench::new();
    bench.model("m.safetensors", 300);
    let cards = "capacity=64MiB,uuid=8932f937d72c4106c12f20bd9faed9f6;\
                 capacity=64MiB,uuid=8932f937d72c4106c12f20bd9faed9f7;\
                 capacity=64MiB,uuid=08932f9370000000000000000000000";
    let listing = json(&run(&bench, cards, &["devices", "--json"]).expect_code(0));
    let card =
        |index: usize, name: &str| listing["devices"][index][name].as_str().unwrap().to_owned();
    let (uuid, other) = (card(1, "uuid"), card(0, "uuid"));
    for device in [
        uuid.clone(),
        uuid.replace("GPU-", "MIG-"),
        uuid.to_uppercase(),
        card(1, "pci_bus_id"),
        format!("0000{}", card(1, "pci_bus_id").to_uppercase()),
        card(1, "device"),
    ] {
        let load = ["load", "--json", "m.safetensors", "--device", &device];
        let (_, report) = check(&run(&bench, cards, &load).expect_code(0).stdout);
        assert_eq!(report["gpus"][0]["uuid"], uuid, "{device}");
    }
    let load = |device: &str| run(&bench, cards, &["load", "m.safetensors", "--device", device]);
    load("GPU-0").expect_code(0);
    // All but the last digit, which two cards have.
    load(&uuid[..uuid.len() - 1])
        .expect_error(4, &["several", &uuid, &other, "more of its digits"]);
    load("GPU-ffffffff").expect_error(4, &["GPU-ffffffff", &uuid, &other, "vram devices"]);
    load("0000:ff:1f.0").expect_error(4, &["0000:ff:1f.0", &card(0, "pci_bus_id")]);
}

#[test]
fn a_device_that_cannot_be_used_is_listed_with_the_reason() {
    let bench = Bench::new();
    let shown = run(&bench, "capacity=1GiB,integrated=true", &["devices"]).expect_code(0).stdout;
    assert!(shown.contains("not usable") && shown.contains("integrated"), "{shown}");
    assert!(shown.contains("it is Simulated GPU, GPU-") && shown.contains("PCI 0000:"), "{shown}");
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
fn a_card_that_is_too_small_is_exit_code_3_and_says_who_holds_it() {
    let bench = Bench::new();
    bench.model("m.safetensors", 3000);
    let load = ["load", "m.safetensors", "--device", "cuda:0"];
    run(&bench, "capacity=2MiB", &load).expect_error(3, &["no room", "--device host:"]);
    // The card is large enough, but other processes hold most of it.
    let words =
        ["no room", "gpu 0", "GPU-", "PCI 0000:", "64.0 MiB", "others hold 62.0 MiB", "1.7 MiB"];
    let held = "capacity=64MiB,foreign=62MiB";
    run(&bench, held, &load).expect_error(3, &words);
    let ran = run(&bench, held, &[&load[..], &["--json"]].concat()).expect_code(3);
    let details = &check(&ran.stdout).1["error"]["details"];
    assert_eq!(details["foreign"], 62 << 20);
    assert!(details["needed"].as_u64() > details["room"].as_u64(), "{details}");
}

#[test]
fn a_card_that_fails_is_exit_code_4_and_named_and_one_that_lies_is_1() {
    let bench = Bench::new();
    bench.model("m.safetensors", 3000);
    let load = ["load", "m.safetensors", "--device", "cuda:0"];
    // An uncorrectable memory error while writing and while reading, at once and later: sticky, the
    // card is lost.
    for fault in ["fail=in:3:214", "later=in:3:214", "fail=out:3:214", "fail=out:100:214"] {
        let card = format!("name=H200,capacity=64MiB,{fault}");
        let words = ["gpu 0 is H200, GPU-", "PCI 0000:", "214", "dmesg", "--device"];
        run(&bench, &card, &load).expect_error(4, &words);
        let ran = run(&bench, &card, &[&load[..], &["--json"]].concat()).expect_code(4);
        let details = &check(&ran.stdout).1["error"]["details"];
        assert_eq!(details["gpu"], 0);
        assert_eq!(details["driver_code"], 214);
        for name in ["gpu_name", "gpu_uuid", "pci_bus_id"] {
            assert!(details[name].is_string(), "{details}");
        }
    }
    // Sealing reads back what it wrote. Once it has ended, the error knows at which tensor the card
    // failed.
    let mut late = (50..).step_by(50).map(|nth| {
        let card = format!("capacity=64MiB,fail=out:{nth}:214");
        let ran = run(&bench, &card, &[&load[..], &["--json"]].concat()).expect_code(4);
        check(&ran.stdout).1["error"].clone()
    });
    let error = late.find(|error| error["details"]["tensor"].is_string()).unwrap();
    let tensor = error["details"]["tensor"].as_str().unwrap();
    assert!(tensor.starts_with("tensor "), "{error}");
    assert!(error["message"].as_str().unwrap().starts_with(tensor), "{error}");
    // A copy that returns success and wrong bytes.
    let ran = run(&bench, "capacity=64MiB,flip=in:9:1000", &load).expect_error(1, &["segment"]);
    assert!(ran.stderr.contains("gpu 0") || ran.stderr.contains("altered"), "{}", ran.stderr);
}

#[test]
fn a_plan_on_cards_is_what_a_load_then_does_and_says_what_is_left_of_each() {
    let bench = Bench::new();
    bench.model("m.safetensors", 3000);
    for (devices, fits) in [
        ("name=A,capacity=64MiB", true),
        ("name=A,capacity=2MiB;name=B,capacity=3MiB", true),
        ("name=A,capacity=1MiB;name=B,capacity=1MiB", false),
    ] {
        let code = if fits { 0 } else { 3 };
        let plan = run(&bench, devices, &["plan", "m.safetensors", "--json"]).expect_code(code);
        let plan = check(&plan.stdout).1;
        let load = run(&bench, devices, &["load", "m.safetensors", "--json"]).expect_code(code);
        let load = check(&load.stdout).1;
        let number = |value: &Value| value.as_u64().unwrap();
        for (index, gpu) in plan["gpus"].as_array().unwrap().iter().enumerate() {
            let card = &gpu["card"];
            assert!(number(&card["usable"]) <= number(&card["total"]) / 10 * 9);
            assert_eq!(number(&card["left"]), number(&card["usable"]) - number(&gpu["taken"]));
            if fits {
                let loaded = &load["gpus"][index];
                assert_eq!(gpu["taken"], loaded["used"], "{devices}");
                assert_eq!(gpu["total"], loaded["total"], "{devices}");
                assert_eq!(gpu["largest_hole_after"], loaded["largest_hole"], "{devices}");
            }
        }
        if !fits {
            assert_eq!(plan["error"]["details"], load["error"]["details"]);
            assert_eq!(plan["error"]["message"], load["error"]["message"]);
        }
    }
    let shown = run(&bench, "name=A,capacity=64MiB", &["plan", "m.safetensors"]).expect_code(0);
    assert!(shown.stdout.contains("a card of 64.0 MiB, of which others hold"), "{}", shown.stdout);
}

#[test]
fn a_soak_fills_a_card_up_to_its_budget_and_a_bench_measures_it() {
    let bench = Bench::new();
    let two = "capacity=64MiB;capacity=64MiB";
    let soak = ["soak", "--for", "3s", "--size", "2MiB", "--json"];
    let report = json(&run(&bench, two, &soak).expect_code(0));
    assert_eq!((&report["verdict"], &report["capacity_restored"]), (&"sound".into(), &true.into()));
    for device in report["devices"].as_array().unwrap() {
        let of = |name: &str| device[name].as_u64().unwrap();
        assert_eq!((of("budget"), of("total")), (2 << 20, 64 << 20), "{report}");
        assert!(of("filled") * 10 > of("budget") * 9, "{report}");
    }
    // Bits are flipped in host memory alone: the driver's memory is out of this program's reach.
    let flip = ["soak", "--for", "3s", "--flip"];
    run(&bench, two, &flip).expect_error_line(&["--flip", "host"]);
    // A card that fails while it is filled: the verdict so far, and exit code 4.
    let failing = "capacity=64MiB,fail=in:40:214";
    let ran = run(&bench, failing, &["soak", "--for", "60s", "--size", "2MiB", "--json"]);
    let (name, document) = check(&ran.expect_code(4).stdout);
    assert_eq!((name.as_str(), &document["verdict"]), ("soak", &"failed".into()), "{document}");
    let measure = ["bench", "--quick", "--size", "1MiB", "--device", "cuda:0", "--json"];
    let report = json(&run(&bench, "capacity=64MiB", &measure).expect_code(0));
    assert_eq!(report["figures"].as_array().unwrap().len(), 9, "{report}");
}
