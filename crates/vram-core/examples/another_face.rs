//! Another face of the engine than the facade: three calls over one GPU in host memory.

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use core::error::Error;
use std::sync::Arc;

use vram_alloc::{ByteLen, GpuIndex};
use vram_core::error::VramError;
use vram_core::parts::{Core, EvictionUnit, Limits, Settings};
use vram_core::resident::read;
use vram_core::room::free;
use vram_core::sealing::{SealRequest, seal};
use vram_core::shard::SealedShard;
use vram_core::transfer::ReadBack;
use vram_events::{OnEviction, Sinks};
use vram_gpu::{Device, HostDevice};
use vram_id::{IdSource, SystemClock};
use vram_seal::parallel::Threads;
use vram_seal::{KeyRing, SealKey, SealParams};
use vram_space::{Compute, Gpu, GpuOptions, Means, MemoryMode, StagingBound, WipePolicy};

/// What a worker with one GPU needs, and no more.
struct Weights {
    core: Arc<Core>,
}

impl Weights {
    fn over(device: Arc<dyn Device>) -> Result<Self, Box<dyn Error>> {
        let (memory, limits) = (device.memory()?, Limits::default());
        let settings = Settings {
            keys: KeyRing::new(SealKey::random()?),
            ticket_key: None,
            node: None,
            ids: IdSource::Process,
            clock: Arc::new(SystemClock),
            sinks: Sinks::new(),
            limits,
            defaults: SealParams::default(),
            read_back: ReadBack::default(),
            threads: Threads::AUTO,
            eviction: None,
            on_eviction: OnEviction::Never,
            eviction_unit: EvictionUnit::Model,
            park_limit: ByteLen::ZERO,
        };
        let options = GpuOptions {
            index: 0,
            budget: memory.free,
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
        let core = Core::new(settings, |tenants| {
            Ok(vec![Arc::new(Gpu::open(device, memory, Arc::clone(tenants), options)?)])
        })?;
        Ok(Self { core: Arc::new(core) })
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<SealedShard, VramError> {
        seal::seal_slice(&self.core, &SealRequest::new(name, 0), bytes)
    }

    fn get(&self, shard: &SealedShard) -> Result<Vec<u8>, VramError> {
        read::unseal(&self.core, shard)
    }

    fn remove(&self, shard: &SealedShard) -> Result<ByteLen, VramError> {
        free::free(&self.core, shard).map(|receipt| receipt.bytes)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let weights = Weights::over(Arc::new(HostDevice::new(GpuIndex::new(0), ByteLen::MIB)?))?;
    let shard = weights.put("llama-3-8b", b"weights")?;
    println!("{} holds {} bytes of {}", shard.shard_id, shard.plaintext_len, shard.model_id);
    assert_eq!(weights.get(&shard)?, b"weights");
    println!("freed, wiped: {}", weights.remove(&shard)?);
    Ok(())
}
