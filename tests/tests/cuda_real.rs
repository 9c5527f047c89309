//! The contract on the GPUs of this machine, when asked for: `VRAM_TEST_DEVICE=cuda`.
//!
//! The simulated driver is a process's only driver once it is installed, so this file has none of
//! it. What it did is said on standard error, past the test harness: a skipped test is never
//! silent. The checks reset the devices: do not run them where others use CUDA in this process.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::Write;
use std::sync::Arc;

use vram_gpu::{CudaDevice, Device, contract};

fn say(text: &str) {
    // Not `eprintln!`: the harness would keep that to itself.
    std::io::stderr().write_all(format!("cuda_real: {text}\n").as_bytes()).unwrap();
}

#[test]
fn the_gpus_of_this_machine_keep_the_contract() {
    if std::env::var("VRAM_TEST_DEVICE").as_deref() != Ok("cuda") {
        say("not run: set VRAM_TEST_DEVICE=cuda to test the GPUs of this machine");
        return;
    }
    // Asked for and not there is a failure.
    for device in CudaDevice::detect().unwrap() {
        let info = device.info();
        say(&format!("{} ({}), driver {:?}", info.name, info.uuid, info.driver_version));
    }
    contract::run(&|| {
        let devices = CudaDevice::detect().unwrap();
        devices.into_iter().map(|device| -> Arc<dyn Device> { device }).collect()
    });
    say("the contract is kept");
}
