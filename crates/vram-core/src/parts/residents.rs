//! Connects a GPU to its users: shards, reservations, and the sinks of events.

use std::sync::{Arc, Weak};

use vram_alloc::ByteLen;
use vram_events::{EventKind, Events};
use vram_gpu::GpuError;
use vram_space::Tenants;

use crate::parts::Promises;
use crate::shard::Shards;
use crate::shard::registry::on;

/// The shards and the promises of one manager. A GPU outlives both, so it owns neither.
#[derive(Debug)]
pub struct Residents {
    pub(crate) promises: Arc<Promises>,
    pub(crate) shards: Weak<Shards>,
    pub(crate) events: Arc<Events>,
}

impl Tenants for Residents {
    fn sweep(&self) {
        self.promises.sweep();
    }

    fn lost(&self, gpu: u32, error: GpuError) {
        let held = self.shards.upgrade().map_or_else(Vec::new, |shards| on(&shards, gpu));
        let shards: Vec<_> = held.into_iter().map(|entry| entry.id.clone()).collect();
        tracing::error!(gpu, shards = shards.len(), %error, "device lost");
        let error = error.to_string().into();
        self.events.emit(EventKind::DeviceLost { gpu, error, shards });
    }

    fn not_returned(&self, gpu: u32, bytes: ByteLen) {
        self.events.emit(EventKind::NotReturned { gpu, bytes });
    }

    fn came_back(&self, gpu: u32, bytes: ByteLen) {
        self.events.emit(EventKind::Returned { gpu, bytes });
    }
}
