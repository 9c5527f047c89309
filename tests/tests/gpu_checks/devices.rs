//! The devices of this machine, and the parameters of this run.

use std::time::SystemTime;

use vram_alloc::ByteLen;
use vram_gpu::{CudaDevice, Device};

use crate::machine;
use crate::rows::row;

#[test]
fn there_is_a_device_and_it_says_what_it_is() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    row("run", &[&"unix time", &now.as_secs()]);
    row("run", &[&"commit", &option_env!("VRAM_GPU_COMMIT").unwrap_or("unknown")]);
    let build = if cfg!(debug_assertions) { "with debug assertions" } else { "optimized" };
    row("run", &[&"build", &build]);
    let threads = std::thread::available_parallelism().map_or(0, usize::from);
    row("run", &[&"host threads", &threads]);
    row("run", &[&"arguments", &std::env::args().skip(1).collect::<Vec<_>>().join(" ")]);

    let devices = machine::devices();
    row("run", &[&"driver", &cuda_shim::driver()]);
    for device in &devices {
        describe(device);
    }
}

fn describe(device: &CudaDevice) {
    let (gpu, info) = (machine::name(device), device.info());
    let size = |len: ByteLen| format!("{} MiB", len.get() >> 20);
    let known = |flag: Option<bool>| flag.map_or("unknown", |on| if on { "on" } else { "off" });
    let say = |what: &str, value: &dyn core::fmt::Display| row("device", &[&gpu, &what, value]);
    say("name", &info.name);
    say("UUID", &info.uuid);
    say("PCI bus id", &info.pci_bus_id.as_deref().unwrap_or("unknown"));
    let (major, minor) = info.compute_capability.unwrap();
    say("compute capability", &format!("{major}.{minor}"));
    let version = info.driver_version.unwrap();
    say("driver speaks CUDA", &format!("{}.{}", version / 1000, version % 1000 / 10));
    say("ECC", &known(info.ecc));
    say("slice of a partitioned card", &known(info.mig));
    say("managed memory supported", &info.managed_memory);
    say("memory", &size(info.total));
    say("of which free", &size(machine::free(device)));

    assert!(!info.integrated && !info.total.is_zero());
    assert!(info.pci_bus_id.as_ref().is_some_and(|id| id.contains(':')));
    // A device opened twice has the same identity.
    let again = machine::open(device.ordinal(), 9);
    assert_eq!(again.info().uuid, info.uuid);
}
