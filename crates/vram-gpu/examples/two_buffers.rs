//! Fills device memory through two staging buffers: the host prepares one while the device copies
//! the other.
//!
//! Run it with `cargo run -p vram-gpu --example two_buffers`.

use core::error::Error;
use std::time::Instant;

use vram_alloc::{ByteLen, DeviceOffset, DeviceRange, GpuIndex};
use vram_gpu::{Device, DeviceMemory, HostDevice, Pending, Staging};

#[expect(clippy::print_stdout, reason = "an example speaks to the person who runs it")]
fn main() -> Result<(), Box<dyn Error>> {
    let device = HostDevice::new(GpuIndex::new(0), ByteLen::from_mib_saturating(256))?;
    let info = device.info();
    println!("{}: {} ({}), {}", info.index, info.name, info.uuid, info.total);

    let memory = device.allocate(ByteLen::from_mib_saturating(64))?;
    println!("allocated {}, {} free", memory.len(), device.memory()?.free);

    let started = Instant::now();
    fill(&device, &*memory)?;
    println!("filled in {:.1} ms", started.elapsed().as_secs_f64() * 1e3);

    let mut last = [0; 4];
    let from = DeviceOffset::new((64 << 20) - 4);
    memory.read(DeviceRange::checked(from, ByteLen::new(4), memory.len())?, &mut last)?;
    println!("the last four bytes are {last:?}");

    // Freed device memory keeps its content, so overwrite it before the free.
    memory.fill(DeviceRange::whole(memory.len()), 0)?;
    memory.free()?;
    println!("freed, {} free", device.memory()?.free);
    Ok(())
}

/// Writes the number of each window into all its bytes.
fn fill(device: &dyn Device, memory: &dyn DeviceMemory) -> Result<(), Box<dyn Error>> {
    let window = device.info().copy_window;
    let mut idle = vec![device.staging(window)?, device.staging(window)?];
    let mut flying: Option<Pending> = None;
    let (mut at, mut number) = (DeviceOffset::START, 0_u8);
    while at.get() < memory.len().get() {
        let len = window.min(ByteLen::new(memory.len().get().saturating_sub(at.get())));
        let mut staging = idle.pop().map_or_else(|| device.staging(window), Ok)?;
        staging.as_mut_slice().fill(number);
        // The next buffer is prepared while this one is copied.
        let started = memory.queue_write(at, staging, len);
        if let Some(pending) = flying.replace(started) {
            idle.push(finish(pending)?);
        }
        at = at.checked_add(len).ok_or("the end of memory is beyond 2^64")?;
        number = number.wrapping_add(1);
    }
    if let Some(pending) = flying {
        finish(pending)?;
    }
    Ok(())
}

fn finish(pending: Pending) -> Result<Staging, Box<dyn Error>> {
    let (staging, outcome) = pending.wait();
    outcome?;
    Ok(staging)
}
