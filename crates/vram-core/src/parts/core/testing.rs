//! A manager's parts over one small host device, for unit tests.

use std::sync::Arc;

use vram_alloc::{ByteLen, GpuIndex};
use vram_events::{OnEviction, Sinks};
use vram_gpu::{Device, HostDevice};
use vram_id::{Clock, IdSource};
use vram_seal::{KeyRing, SealKey, SealParams, SegmentSize, Threads};
use vram_space::{Compute, Gpu, GpuOptions, Means, MemoryMode, StagingBound, WipePolicy};

use crate::parts::EvictionUnit;
use crate::parts::core::{Core, Settings};
use crate::parts::limits::Limits;
use crate::transfer::check::ReadBack;

/// One thread, the smallest segments, and a GPU of 1 MiB.
pub(crate) fn core(clock: Arc<dyn Clock>) -> Arc<Core> {
    let device = HostDevice::new(GpuIndex::new(0), ByteLen::MIB).unwrap();
    core_on(Arc::new(device), clock, Limits::default())
}

/// As [`core`], over this device, which is used whole.
pub(crate) fn core_on(device: Arc<dyn Device>, clock: Arc<dyn Clock>, limits: Limits) -> Arc<Core> {
    let settings = Settings {
        keys: KeyRing::new(SealKey::from_bytes(&[7; 32])),
        ticket_key: None,
        node: None,
        ids: IdSource::Process,
        clock,
        sinks: Sinks::new(),
        limits,
        defaults: SealParams::default().with_segment(SegmentSize::MIN),
        read_back: ReadBack::default(),
        threads: Threads::ONE,
        eviction: None,
        on_eviction: OnEviction::Never,
        eviction_unit: EvictionUnit::Model,
        park_limit: ByteLen::MIB,
    };
    let core = Core::new(settings, |tenants| {
        let memory = device.memory().unwrap();
        let options = GpuOptions {
            index: 0,
            budget: memory.total,
            headroom: ByteLen::ZERO,
            mode: MemoryMode::Region,
            wipe: WipePolicy::Always,
            means: Means {
                workers: 1,
                staging_bytes: limits.staging_bytes,
                staging: StagingBound::new(limits.staging_total, limits.staging_wait),
            },
            compute: Compute::default(),
        };
        Ok(vec![Arc::new(Gpu::open(device, memory, Arc::clone(tenants), options)?)])
    });
    Arc::new(core.unwrap())
}
