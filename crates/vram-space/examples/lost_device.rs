//! A device is lost while in use, is reset, and its memory is placed again.

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use core::error::Error;
use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

use vram_alloc::{ByteLen, GpuIndex};
use vram_gpu::fault::{Action, FaultDevice, FaultPlan, Op};
use vram_gpu::{Device, GpuError, HostDevice};
use vram_space::{Compute, Gpu, GpuOptions, Means, MemoryMode, StagingBound, Tenants, WipePolicy};

#[derive(Debug, Default)]
struct Owner {
    losses: AtomicU32,
}

impl Tenants for Owner {
    fn stamp(&self) -> u64 {
        0
    }

    fn sweep(&self) {}

    fn lost(&self, _stamp: u64, gpu: u32, error: GpuError) -> usize {
        println!("gpu {gpu} is lost: {error}");
        self.losses.fetch_add(1, Ordering::Relaxed);
        0
    }

    fn not_returned(&self, gpu: u32, bytes: ByteLen) {
        println!("{bytes} on gpu {gpu} stay counted");
    }

    fn came_back(&self, gpu: u32, bytes: ByteLen) {
        println!("{bytes} on gpu {gpu} can be handed out again");
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let host = Arc::new(HostDevice::new(GpuIndex::new(0), ByteLen::MIB)?);
    let device = FaultDevice::new(host, FaultPlan::new(1));
    let memory = device.memory()?;
    let owner = Arc::new(Owner::default());
    let options = GpuOptions {
        index: 0,
        budget: ByteLen::MIB,
        headroom: ByteLen::ZERO,
        mode: MemoryMode::Region,
        wipe: WipePolicy::Always,
        means: Means {
            workers: 1,
            staging_bytes: ByteLen::MIB,
            staging: StagingBound::for_calls_of(ByteLen::MIB),
        },
        compute: Compute::default(),
    };
    let shared: Arc<dyn Device> = Arc::<FaultDevice>::clone(&device);
    let gpu = Arc::new(Gpu::open(shared, memory, Arc::<Owner>::clone(&owner), options)?);

    let mut space = gpu.place(ByteLen::new(5000))?;
    space.written()?;
    space.commit();
    println!("in use: {}", gpu.capacity().used);

    // An uncorrectable memory error: the next call to the device meets it.
    device.next(Op::Write, Action::Driver(vram_gpu::codes::ECC_UNCORRECTABLE))?;
    let lost = space.memory()?.write(space.range(), &[0; 5000]).map_err(|error| gpu.failed(error));
    println!("the write: {}", lost.err().map_or_else(String::new, |error| error.to_string()));
    println!("a new place: {:?}", gpu.place(ByteLen::new(1)).err().map(|error| error.to_string()));
    assert_eq!(owner.losses.load(Ordering::Relaxed), 1, "the loss is told once");

    // After the loss, releasing the space changes the ledger without a call to the driver.
    drop(space);
    assert!(gpu.capacity().used.is_zero() && device.calls_after_loss() == 0);

    let claim = gpu.life.claim().ok_or("another reset is under way")?;
    gpu.renew(gpu.empty()?);
    gpu.recover(|| ());
    drop(claim);
    let again = gpu.place(ByteLen::new(5000))?;
    println!("after the reset: {} held again", again.footprint());
    Ok(())
}
