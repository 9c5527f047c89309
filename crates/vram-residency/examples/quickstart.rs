//! What a manager is for, in one run: seal, read a range, move, verify, catch a tampered bit, be
//! refused with figures, and see every byte come back.

use std::sync::Arc;

use vram_residency::device::fault::FaultPlan;
use vram_residency::device::{FaultDevice, HostDevice};
use vram_residency::{ByteLen, GpuIndex, Protection, SealRequest, Verify, VramError, VramManager};

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
fn main() -> Result<(), Box<dyn core::error::Error>> {
    // Two GPUs of 8 MiB in host memory. The first one can be tampered with from outside.
    let total = ByteLen::from_mib_saturating(8);
    let host = Arc::new(HostDevice::new(GpuIndex::new(0), total)?);
    let tampered = FaultDevice::new(host, FaultPlan::new(1));
    let manager = VramManager::builder().device(tampered.clone()).host_device(total).build()?;

    let weights: Vec<u8> = (0..=250).cycle().take(3_000_000).collect();
    let shard = manager.seal_model("llama-3-8b", 0, &weights)?;
    println!("sealed {shard:?}");
    println!("{}", manager.report());

    let part = manager.read_shard_at_offset(&shard, 1_000_000, 16)?;
    assert!(weights.get(1_000_000..1_000_016) == Some(&*part));
    println!("16 bytes at 1 000 000: {part:?}");

    let shard = manager.migrate_shard(&shard, 1)?;
    println!("moved to gpu {}: {}", shard.gpu_index, manager.verify(&shard, Verify::Full)?);

    match manager.seal_model("too-large", 1, &vec![0; 7 << 20]) {
        Err(VramError::InsufficientVram(shortfall)) => println!("refused: {shortfall}"),
        other => println!("unexpected: {other:?}"),
    }

    // Weights that kernels read in place: somebody flips one bit of them in device memory.
    let request = SealRequest::new("llama-3-8b", 0).protection(Protection::Authenticated);
    let open = manager.seal(request, &weights)?;
    tampered.flip_bit_at(None, vram_alloc::DeviceOffset::new(600_000), 3)?;
    println!("after one flipped bit: {}", manager.verify(&open, Verify::Segments)?);
    if let Err(error) = manager.unseal_model(&open) {
        println!("not served: {error}");
    }

    println!("{}", manager.free_shard(&open)?);
    assert!(manager.unseal_and_free(&shard)? == weights);
    println!("{}", manager.report());
    Ok(())
}
