//! One allocation of a host device.

use core::any::Any;
use core::cmp::Ordering;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::{self, AtomicU64};
use std::sync::Arc;

use vram_alloc::{ByteLen, DeviceOffset, DeviceRange, GpuIndex};

use super::Shared;
use super::chunk::{Chunks, LockKey, Piece, pieces};
use crate::memory::{Extent, overlaps};
use crate::{DeviceAddress, DeviceMemory, FreeError, GpuError, Pending, Staging};

/// The number of the next allocation of the process. Chunks are locked in the order of these
/// numbers.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);

/// Host memory behind the trait [`DeviceMemory`].
pub(crate) struct HostMemory {
    shared: Arc<Shared>,
    len: ByteLen,
    epoch: u64,
    number: u64,
    chunks: Chunks,
}

impl HostMemory {
    pub(super) fn new(
        shared: Arc<Shared>,
        len: ByteLen,
        epoch: u64,
        made: u64,
    ) -> Result<Self, GpuError> {
        let seed = made ^ (u64::from(shared.gpu().get()) << 32);
        let chunks = Chunks::new(len, seed)?;
        let number = NEXT_NUMBER.fetch_add(1, atomic::Ordering::Relaxed);
        Ok(Self { shared, len, epoch, number, chunks })
    }

    fn extent(&self) -> Extent {
        Extent { gpu: self.shared.gpu(), len: self.len }
    }

    /// Whether it is memory of this device.
    pub(super) fn is_of(&self, shared: &Arc<Shared>) -> bool {
        Arc::ptr_eq(&self.shared, shared)
    }

    /// Returns an error if the device was reset after this allocation was made.
    pub(super) fn live(&self) -> Result<(), GpuError> {
        if self.epoch == self.shared.epoch() {
            Ok(())
        } else {
            Err(GpuError::StaleAllocation { gpu: self.shared.gpu() })
        }
    }

    /// The range as positions in host memory. An allocation fits the host's address space, so a
    /// range inside it does.
    fn span(&self, range: DeviceRange) -> Result<Range<usize>, GpuError> {
        range.to_usize_range().ok_or(GpuError::HostMemory { wanted: self.len })
    }

    fn key(&self, piece: Piece) -> LockKey {
        (self.number, piece.chunk)
    }

    /// Copies one pair of pieces of the same length.
    fn copy_piece(&self, to: Piece, source: &Self, from: Piece) -> Result<(), GpuError> {
        match self.key(to).cmp(&source.key(from)) {
            Ordering::Equal => {
                self.chunks.write(to.chunk)?.copy_within(to.start, from.start, to.len);
            }
            Ordering::Greater => {
                let read = source.chunks.read(from.chunk);
                self.chunks.write(to.chunk)?.copy(to.start, &read, from.start, to.len);
            }
            Ordering::Less => {
                let mut write = self.chunks.write(to.chunk)?;
                write.copy(to.start, &source.chunks.read(from.chunk), from.start, to.len);
            }
        }
        Ok(())
    }
}

impl DeviceMemory for HostMemory {
    fn gpu(&self) -> GpuIndex {
        self.shared.gpu()
    }

    fn len(&self) -> ByteLen {
        self.len
    }

    fn address(&self) -> DeviceAddress {
        DeviceAddress::new(ByteLen::from_usize(self.chunks.address()).get())
    }

    #[tracing::instrument(level = "debug", skip_all, fields(gpu = %self.gpu(), bytes = to.len().get()))]
    fn write(&self, to: DeviceRange, mut source: &[u8]) -> Result<(), GpuError> {
        self.live()?;
        let to = self.span(self.extent().matching(to, source.len())?)?;
        for piece in pieces(to) {
            let (part, behind) = source.split_at(piece.len);
            self.chunks.write(piece.chunk)?.write(piece.start, part);
            source = behind;
        }
        Ok(())
    }

    #[tracing::instrument(level = "debug", skip_all, fields(gpu = %self.gpu(), bytes = from.len().get()))]
    fn read(&self, from: DeviceRange, mut target: &mut [u8]) -> Result<(), GpuError> {
        self.live()?;
        let from = self.span(self.extent().matching(from, target.len())?)?;
        for piece in pieces(from) {
            let (part, behind) = target.split_at_mut(piece.len);
            self.chunks.read(piece.chunk).read(piece.start, part);
            target = behind;
        }
        Ok(())
    }

    #[tracing::instrument(level = "debug", skip_all, fields(gpu = %self.gpu(), bytes = range.len().get()))]
    fn fill(&self, range: DeviceRange, value: u8) -> Result<(), GpuError> {
        self.live()?;
        let range = self.span(self.extent().within(range)?)?;
        for piece in pieces(range) {
            self.chunks.write(piece.chunk)?.fill(piece.start, piece.len, value);
        }
        Ok(())
    }

    #[tracing::instrument(level = "debug", skip_all, fields(gpu = %self.gpu(), bytes = to.len().get()))]
    fn copy_from(
        &self,
        to: DeviceRange,
        source: &dyn DeviceMemory,
        from: DeviceRange,
    ) -> Result<(), GpuError> {
        let unreachable = GpuError::PeerUnsupported { from: source.gpu(), to: self.gpu() };
        let source = source.backing().as_any().downcast_ref::<Self>().ok_or(unreachable)?;
        if !self.shared.reaches(&source.shared) {
            return Err(unreachable);
        }
        self.live()?;
        source.live()?;
        let (to, from) = (self.extent().within(to)?, source.extent().within(from)?);
        let gpu = self.gpu();
        if to.len() != from.len() {
            let (range_len, buffer_len) = (to.len(), from.len());
            return Err(GpuError::LengthMismatch { gpu, range_len, buffer_len });
        }
        if self.number == source.number && overlaps(to, from) {
            let (len, from, to) = (to.len(), from.start(), to.start());
            return Err(GpuError::Overlap { gpu, from, to, len });
        }

        // The two ranges have different chunk boundaries: split at both.
        let (mut targets, mut sources) = (pieces(self.span(to)?), pieces(source.span(from)?));
        let (mut target, mut origin) = (targets.next(), sources.next());
        while let (Some(to), Some(from)) = (target, origin) {
            let len = to.len.min(from.len);
            self.copy_piece(Piece { len, ..to }, source, Piece { len, ..from })?;
            target = to.after(len).or_else(|| targets.next());
            origin = from.after(len).or_else(|| sources.next());
        }
        Ok(())
    }

    fn queue_write(&self, to: DeviceOffset, staging: Staging, len: ByteLen) -> Pending {
        let outcome = self.extent().at(to, len).and_then(|to| {
            self.extent().staged(to, &staging)?;
            let bytes = len.to_usize().and_then(|len| staging.as_slice().get(..len));
            self.write(to, bytes.ok_or(GpuError::HostMemory { wanted: len })?)
        });
        Pending::over(staging, outcome)
    }

    fn queue_read(&self, from: DeviceRange, mut staging: Staging) -> Pending {
        let outcome = self.extent().staged(from, &staging).and_then(|from| {
            let len = from.len();
            let bytes = len.to_usize().and_then(|len| staging.as_mut_slice().get_mut(..len));
            self.read(from, bytes.ok_or(GpuError::HostMemory { wanted: len })?)
        });
        Pending::over(staging, outcome)
    }

    fn free(self: Box<Self>) -> Result<(), FreeError> {
        drop(self);
        Ok(())
    }

    fn backing(&self) -> &dyn DeviceMemory {
        self
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        self.shared.give_back(self.len, self.epoch);
    }
}

impl fmt::Debug for HostMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostMemory")
            .field("gpu", &self.gpu())
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
