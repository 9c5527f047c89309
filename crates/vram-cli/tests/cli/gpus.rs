//! `vram devices`, and loading into CUDA devices: with a driver, without one, and not compiled in.
//!
//! With the feature `cuda`, the driver is the simulated one, loaded as the real one would be.

#[cfg(not(feature = "cuda"))]
#[test]
fn a_build_without_cuda_says_so_and_serves_from_host_memory() {
    let bench = crate::support::Bench::new();
    let ran = bench.run(["devices"]).expect_code(0);
    assert!(
        ran.stdout.contains("no CUDA device: this build of vram has no CUDA"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("--device host:8GiB"), "{}", ran.stdout);

    let json = bench.run(["devices", "--json"]).expect_code(0).stdout;
    let listing: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(listing["cuda_compiled_in"], false);
    assert_eq!(listing["devices"].as_array().unwrap().len(), 0);
    assert!(listing["why_none"].as_str().unwrap().contains("--features cuda"));
}

#[cfg(all(feature = "cuda", target_os = "linux"))]
mod with_cuda {
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::sync::OnceLock;

    use serde_json::Value;

    use crate::support::{Bench, Ran, blake3};

    /// The simulated driver as a shared object, built by the cargo that runs this test.
    fn driver() -> &'static Path {
        static DRIVER: OnceLock<PathBuf> = OnceLock::new();
        DRIVER.get_or_init(|| {
            let program = Path::new(env!("CARGO_BIN_EXE_vram"));
            let profile_folder = program.parent().unwrap();
            let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
                .args(["build", "--quiet", "-p", "cuda-sim-so", "--target-dir"])
                .arg(profile_folder.parent().unwrap())
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .status()
                .unwrap();
            assert!(built.success());
            profile_folder.with_file_name("debug").join("libcuda_sim_so.so")
        })
    }

    fn on(bench: &Bench, devices: &str, args: &[&str]) -> Ran {
        let mut command = bench.command(args);
        command.env("VRAM_CUDA_DRIVER", driver()).env("CUDA_SIM_DEVICES", devices);
        Ran::of(command.output().unwrap())
    }

    #[test]
    fn the_program_needs_no_cuda_library_to_start() {
        let ldd = Command::new("ldd").arg(env!("CARGO_BIN_EXE_vram")).output().unwrap();
        let needed = String::from_utf8(ldd.stdout).unwrap();
        assert!(ldd.status.success() && needed.contains("libc.so"), "{needed}");
        for name in ["cuda", "nvidia", "nvrtc", "cudart"] {
            assert!(!needed.contains(name), "{needed}");
        }
    }

    #[test]
    fn without_a_driver_it_says_what_is_missing_and_works_on_host_memory() {
        // The bench's commands name a driver that is not there.
        let bench = Bench::new();
        let path = bench.model("m.safetensors", 300);
        let ran = bench.run(["devices"]).expect_code(0);
        for words in ["no CUDA device: no CUDA driver", "install the NVIDIA driver", "host:8GiB"] {
            assert!(ran.stdout.contains(words), "{}", ran.stdout);
        }
        let ran = bench.run(["load", "m.safetensors"]).expect_code(0);
        assert!(ran.stdout.contains("no CUDA driver"), "{}", ran.stdout);
        assert!(ran.stdout.contains("of host memory"), "{}", ran.stdout);
        let digest = blake3(&std::fs::read(path).unwrap()).to_string();
        assert!(ran.stdout.lines().last().unwrap().starts_with(&digest));
        bench
            .run(["load", "m.safetensors", "--device", "cuda:0"])
            .expect_error(4, &["cannot open cuda:0", "no CUDA driver", "host:8GiB"]);
    }

    #[test]
    fn a_driver_without_a_device_is_told_from_no_driver() {
        let bench = Bench::new();
        let ran = on(&bench, "", &["devices"]).expect_code(0);
        assert!(ran.stdout.contains("the CUDA driver found no device"), "{}", ran.stdout);
        assert!(ran.stdout.contains("CUDA_VISIBLE_DEVICES"), "{}", ran.stdout);
    }

    #[test]
    fn every_device_is_listed_the_unusable_ones_with_their_reason() {
        let bench = Bench::new();
        let devices = "name=H200,capacity=64MiB,foreign=16MiB;name=Tegra,integrated=true";
        let ran = on(&bench, devices, &["devices"]).expect_code(0);
        for words in
            ["cuda:0", "H200", "64.0 MiB", "48.0 MiB", "GPU-", "cuda:1  left out", "integrated"]
        {
            assert!(ran.stdout.contains(words), "{words}: {}", ran.stdout);
        }
        let json = on(&bench, devices, &["devices", "--json"]).expect_code(0).stdout;
        let listing: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(listing["cuda_compiled_in"], true);
        assert_eq!(listing["devices"][0]["device"], "cuda:0");
        assert_eq!(listing["devices"][0]["total"], 64 << 20);
        assert_eq!(listing["devices"][0]["free"], 48 << 20);
        assert_eq!(listing["devices"][0]["compute_capability"], "9.0");
        assert!(listing["devices"][1]["why_not"].as_str().unwrap().contains("integrated"));
    }

    #[test]
    fn a_model_is_loaded_into_the_cuda_devices_there_are() {
        let bench = Bench::new();
        let path = bench.model("m.safetensors", 3000);
        let digest = blake3(&std::fs::read(path).unwrap()).to_string();
        let devices = "name=First,capacity=32MiB;name=Second,capacity=64MiB";
        let load = |more: &[&str]| {
            let args = [&["load", "m.safetensors", "--json"][..], more].concat();
            let ran = on(&bench, devices, &args).expect_code(0);
            let report: Value = serde_json::from_str(&ran.stdout).unwrap();
            assert_eq!(report["files"][0]["blake3"], digest.as_str());
            assert_eq!(report["capacity_restored"], true);
            report
        };

        let all = load(&[]);
        assert!(all["devices"].as_str().unwrap().contains("every CUDA device, 2 found"));
        assert_eq!(all["gpus"].as_array().unwrap().len(), 2);
        let one = load(&["--device", "cuda:1"]);
        assert_eq!(one["gpus"][0]["name"], "Second");
        // No more of a card is taken than the model needs: it may be in use.
        assert_eq!(one["gpus"][0]["free"], 0);
        assert!(one["gpus"][0]["total"].as_u64().unwrap() < 4 << 20);
        let mixed = load(&["--device", "host:16MiB", "--device", "cuda:0", "--gpu", "1"]);
        assert_eq!(mixed["gpus"][1]["name"], "First");
        assert_eq!(mixed["gpus"][0]["shard_count"], 0);
    }

    #[test]
    fn what_goes_wrong_on_a_cuda_device_has_its_exit_code_and_words() {
        let bench = Bench::new();
        bench.model("m.safetensors", 3000);
        let load = ["load", "m.safetensors", "--device", "cuda:0"];
        on(&bench, "capacity=1MiB", &load).expect_error(3, &["no room"]);
        // Others hold nearly everything: what counts is what is free.
        on(&bench, "capacity=64MiB,foreign=63MiB", &load).expect_error(3, &["no room"]);
        on(&bench, "capacity=64MiB,later=in:3:214", &load).expect_error(4, &["214"]);
        // A bit that flips on the way in is found by reading back, before anybody relies on it.
        on(&bench, "capacity=64MiB,flip=in:2:12345", &load).expect_error(1, &["segment"]);
        let other = ["load", "m.safetensors", "--device", "cuda:7"];
        on(&bench, "capacity=64MiB", &other).expect_error(4, &["there is no CUDA device 7"]);
        on(&bench, "capacity=64MiB,integrated=true", &load).expect_error(4, &["integrated"]);
        let twice = ["load", "m.safetensors", "--device", "cuda:0", "--device", "cuda:0"];
        on(&bench, "capacity=64MiB", &twice).expect_error(2, &["gpu 1 is gpu 0 once more"]);
    }
}
