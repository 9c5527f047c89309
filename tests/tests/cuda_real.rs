//! The contract on the GPUs of this machine, if requested: `VRAM_TEST_DEVICE=cuda`.
//!
//! Once the simulated driver is installed it is the process's only driver, so this file does not
//! use it. The test prints its result to standard error, past the test harness, so that a skip is
//! visible. The checks reset the devices: do not run them where other code uses CUDA in this
//! process.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[macro_use]
extern crate vram_testkit;

use std::io::Write;
use std::sync::Arc;

use vram_gpu::{CudaDevice, Device, Sharing, contract};

fn say(text: &str) {
    // Not `eprintln!`: the harness would capture the text.
    std::io::stderr().write_all(format!("cuda_real: {text}\n").as_bytes()).unwrap();
}

#[test]
fn the_gpus_of_this_machine_keep_the_contract() {
    if std::env::var("VRAM_TEST_DEVICE").as_deref() != Ok("cuda") {
        say("not run: set VRAM_TEST_DEVICE=cuda to test the GPUs of this machine");
        return;
    }
    // A requested device that does not exist is a failure.
    for device in CudaDevice::detect().unwrap() {
        let info = device.info();
        say(&format!("{} ({}), driver {:?}", info.name, info.uuid, info.driver_version));
    }
    contract::run(&|| {
        let devices = CudaDevice::detect().unwrap();
        devices.iter().map(|device| -> Arc<dyn Device> { device.shared(Sharing::Alone) }).collect()
    });
    say("the contract is kept");
}
