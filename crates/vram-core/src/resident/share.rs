//! A leased shard that another process on the same card uses where it lies.

use std::sync::Arc;

use vram_alloc::{ByteLen, DeviceOffset, DeviceRange, DeviceUuid};
use vram_gpu::ShareHandle;
use vram_space::{Block, MemoryMode};

use crate::error::VramError;
use crate::shard::Entry;

/// What another process needs to open a leased shard: see [`Lease::share`](super::Lease::share).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SharedShard {
    /// The device, by its identity: the numbers of devices differ between processes.
    pub device: DeviceUuid,
    /// The name of the allocation that holds the shard.
    pub handle: ShareHandle,
    /// The first byte of the shard in that allocation.
    pub offset: ByteLen,
    /// Plaintext bytes of the shard.
    pub len: ByteLen,
    /// Bytes of the allocation. Those behind the shard are zeros.
    pub allocation: ByteLen,
}

/// Names the memory of a leased shard to another process.
pub(super) fn share(
    entry: &Entry,
    memory: Option<&Arc<Block>>,
    len: ByteLen,
) -> Result<SharedShard, VramError> {
    let refused = |reason| VramError::NotShareable { shard: entry.id.clone(), reason };
    if len.is_zero() {
        return Err(refused("it has no bytes"));
    }
    // A reset that is planned waits for this call, and a lost device is not asked.
    let view = entry.view()?;
    let gpu = &view.gpu;
    let memory = memory.ok_or_else(|| {
        refused("it is ciphertext on its device: seal it with Protection::Authenticated")
    })?;
    if gpu.backing.mode() != MemoryMode::SharedBlocks {
        return Err(refused(
            "it has no allocation of its own in whole pages: use its gpu with \
             MemoryMode::SharedBlocks",
        ));
    }
    // After a reset the lease keeps what was before it.
    if !Arc::ptr_eq(memory, &view.memory()?) {
        return Err(refused("its device was reset after the lease began: lease it again"));
    }
    let (offset, whole) = (ByteLen::new(view.range.start().get()), memory.len());
    let end = offset.saturating_add(len);
    let (behind, rest) = (DeviceOffset::new(end.get()), whole.saturating_sub(end));
    let behind = DeviceRange::checked(behind, rest, whole);
    let behind = behind.map_err(|error| VramError::config(error.to_string()))?;
    let handle = gpu.caught(|| {
        // A fresh allocation may have what somebody left there.
        memory.fill(behind, 0)?;
        memory.share()
    });
    let handle = handle.map_err(|error| gpu.failed(error))?;
    let device = gpu.device.info().uuid;
    tracing::info!(shard = %entry.id, gpu = gpu.index, bytes = whole.get(), "shared");
    Ok(SharedShard { device, handle, offset, len, allocation: whole })
}
