//! Lists the CUDA devices of this machine, or explains why there are none.
//!
//! Run it with `cargo run -p vram-gpu --features cuda --example devices`.

use vram_gpu::{CudaDevice, Device};

#[expect(clippy::print_stdout, reason = "an example speaks to the person who runs it")]
fn main() {
    let devices = match CudaDevice::survey() {
        Ok(devices) => devices,
        Err(reason) => {
            println!("{reason}");
            return;
        }
    };
    for device in devices {
        match device {
            Ok(device) => {
                let info = device.info();
                let bus = info.pci_bus_id.as_deref().unwrap_or("bus unknown");
                println!("{}: {} ({}, {bus}), {}", info.index, info.name, info.uuid, info.total);
                match device.memory() {
                    Ok(memory) => println!("  {} free", memory.free),
                    Err(error) => println!("  {error}"),
                }
            }
            Err(reason) => println!("{reason}"),
        }
    }
}
