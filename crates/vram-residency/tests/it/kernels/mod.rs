//! Devices that compute where the bytes lie: whatever kernels do, the manager says what it would say
//! without them.

mod cunning;
mod lies;
mod looks;
mod moves;
mod sealed_anew;
mod sealed_there;

use std::sync::Arc;

use vram_residency::device::fault::FaultPlan;
use vram_residency::device::{FaultDevice, HostDevice};
use vram_residency::{
    ByteLen, Compute, GpuIndex, KernelFigures, MemoryMode, Protection, SealRequest, Suite,
};
use vram_test_rigs::{Rig, SEGMENT};

/// Devices with kernels, of these lengths.
fn devices(totals: &[usize]) -> Vec<Arc<FaultDevice>> {
    let device = |(index, total): (u32, &usize)| {
        let builder = HostDevice::builder(GpuIndex::new(index), ByteLen::from_usize(*total));
        FaultDevice::new(Arc::new(builder.kernels().build().unwrap()), FaultPlan::new(1))
    };
    (0..).zip(totals).map(device).collect()
}

/// A manager over devices with kernels.
fn rig(totals: &[usize], compute: Compute) -> Rig {
    Rig::over(devices(totals), MemoryMode::Region, |builder| builder.compute(compute).id_seed(3))
}

/// What the kernels of the first GPU did.
fn figures(rig: &Rig) -> KernelFigures {
    rig.manager.metrics().gpus[0].kernels
}

/// Content that repeats nowhere.
fn content(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    (0..len).map(next).collect()
}

fn request(protection: Protection, suite: Suite) -> SealRequest {
    SealRequest::new("model", 0).protection(protection).suite(suite)
}

/// Every form of a shard: what lies in memory, and the cipher.
const FORMS: [(Protection, Suite); 3] = [
    (Protection::Authenticated, Suite::Aes256Gcm),
    (Protection::Encrypted, Suite::Aes256Gcm),
    (Protection::Encrypted, Suite::ChaCha20Poly1305),
];
