//! Connects a GPU to its users: shards, reservations, and the sinks of events.

use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_events::EventKind;
use vram_gpu::GpuError;
use vram_id::Timestamp;
use vram_space::{KernelsIdle, Tenants};

use crate::parts::Promises;
use crate::shard::Listeners;

/// The promises of one manager, and those who hear of its shards. A GPU outlives the shards, so it
/// owns none of them.
#[derive(Debug)]
pub struct Residents {
    pub(crate) promises: Arc<Promises>,
    pub(crate) listeners: Arc<Listeners>,
}

impl Tenants for Residents {
    fn sweep(&self) {
        self.promises.sweep();
    }

    fn stamp(&self) -> u64 {
        self.listeners.events.now().unix_millis()
    }

    fn lost(&self, stamp: u64, gpu: u32, error: GpuError) -> usize {
        let shards = self.listeners.census.shards(gpu);
        let count = shards.len();
        let (error, shards) = (error.to_string().into(), shards.into());
        let at = Timestamp::from_unix_millis(stamp);
        self.listeners.events.append(at, None, EventKind::DeviceLost { gpu, error, shards });
        count
    }

    fn not_returned(&self, gpu: u32, bytes: ByteLen) {
        self.listeners.events.emit(EventKind::NotReturned { gpu, bytes });
    }

    fn came_back(&self, gpu: u32, bytes: ByteLen) {
        self.listeners.events.emit(EventKind::Returned { gpu, bytes });
    }

    fn kernels(&self, gpu: u32, idle: Option<KernelsIdle>) {
        self.listeners.events.emit(match idle {
            None => EventKind::KernelsUsed { gpu },
            Some(why) => EventKind::KernelsIdle { gpu, why: why.to_string().into() },
        });
    }

    fn kernels_disagreed(&self, gpu: u32, segments: u64) {
        self.listeners.events.emit(EventKind::KernelsDisagreed { gpu, segments });
    }
}
