//! The code of docs/interop.md: a leased shard as a slice of cust, on the simulated driver, through the real
//! cust. The page has the part between the two lines of dashes, word by word.
//!
//! One of the few suites with `unsafe`: a slice of cust is made of an address by an unsafe call.

#[macro_use]
extern crate vram_testkit;

use cuda_sim::{DeviceSpec, Sim};
use cust::context::Context;
use cust::memory::CopyDestination as _;
use vram_gpu::CudaDevice;
use vram_residency::{Budget, ByteLen, GpuIndex, Lease, Protection, SealRequest, VramManager};

// ---------------------------------------------------------------------------------------------------------
/// The bytes of a leased shard as cust takes them.
struct Weights<'a> {
    slice: cust::memory::DeviceSlice<u8>,
    _lease: &'a Lease,
}

impl<'a> Weights<'a> {
    fn new(lease: &'a Lease) -> Option<Self> {
        let start = cust::memory::DevicePointer::from_raw(lease.device_pointer()?.get());
        let len = usize::try_from(lease.len().get()).ok()?;
        // SAFETY: `len` verified bytes lie there for as long as the lease lives, which `Self` borrows.
        let slice = unsafe { cust::memory::DeviceSlice::from_raw_parts(start, len) };
        Some(Self { slice, _lease: lease })
    }
}
// ---------------------------------------------------------------------------------------------------------

#[test]
fn a_leased_shard_is_a_slice_of_cust_with_the_bytes_that_were_sealed() {
    cuda_sim::install();
    let ordinal = Sim::add_device(DeviceSpec { capacity: 8 << 20, ..DeviceSpec::default() });
    let device = CudaDevice::open(ordinal, GpuIndex::new(0)).unwrap();
    let manager = VramManager::builder()
        .device(device)
        .budget(0, Budget::Bytes(ByteLen::new(4 << 20)))
        .build()
        .unwrap();
    let data: Vec<u8> = (0..=250).cycle().take(100_003).collect();
    let request = SealRequest::new("model", 0).protection(Protection::Authenticated);
    let shard = manager.seal(request, &data).unwrap();
    let lease = manager.lease(&shard).unwrap();

    // cust computes in the primary context of the device, as the manager does.
    let context = Context::new(cust::device::Device::get_device(ordinal).unwrap()).unwrap();
    let weights = Weights::new(&lease).unwrap();
    let mut copy = vec![0; data.len()];
    weights.slice.copy_to(&mut copy).unwrap();
    assert!(copy == data, "the slice has other bytes");
    drop((weights, context));
    drop(lease);
    manager.free_shard(&shard).unwrap();
}

#[test]
fn the_page_on_other_libraries_has_the_code_that_is_tested_here() {
    let tested = include_str!("interop_cust.rs").split("// -------").nth(1).unwrap();
    let (_, tested) = tested.split_once('\n').unwrap();
    let page = include_str!("../../docs/interop.md");
    assert!(page.contains(tested.trim_end()), "docs/interop.md has other code");
}
