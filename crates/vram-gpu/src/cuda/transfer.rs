//! Copies of bytes in ordinary host memory, through page-locked buffers.

use vram_alloc::ByteLen;

use super::allocation::Span;
use super::context::Bound;
use super::driver;
use super::lane::{BOUNCE_LEN, Bounce, Lane};
use crate::GpuError;

/// Copies to the device through the pair of buffers: the host fills one while the device reads the
/// other.
pub(super) fn write_through(
    lane: &Lane,
    bounce: &mut Bounce,
    to: Span,
    source: &[u8],
) -> Result<(), u32> {
    let mut target = to.start;
    for (turn, chunk) in source.chunks(BOUNCE_LEN).enumerate() {
        if turn > 1 {
            lane.wait_for(turn)?;
        }
        let part = bounce.part(turn, chunk.len());
        part.copy_from_slice(chunk);
        // SAFETY: the stream is the borrowed lane's. The chunks are adjacent in `to`, which is as long as `source`. The buffer is not
        // written again before its event was waited for: two iterations later, or at the end.
        unsafe { driver::copy_in(target, part.as_ptr(), chunk.len(), lane.stream()) }?;
        lane.mark(turn)?;
        target = target.saturating_add(ByteLen::from_usize(chunk.len()).get());
    }
    lane.wait()
}

/// Copies from the device through the pair of buffers: the host empties one while the device fills
/// the other.
pub(super) fn read_through(
    lane: &Lane,
    bounce: &mut Bounce,
    from: Span,
    target: &mut [u8],
) -> Result<(), u32> {
    let mut source = from.start;
    let mut arriving: Option<(usize, &mut [u8])> = None;
    for (turn, chunk) in target.chunks_mut(BOUNCE_LEN).enumerate() {
        let part = bounce.part(turn, chunk.len());
        // SAFETY: the stream is the borrowed lane's. The chunks are adjacent in `from`, which is as long as `target`. The buffer's
        // last content was copied out two iterations before, and it is read only after its event.
        unsafe { driver::copy_out(part.as_mut_ptr(), source, chunk.len(), lane.stream()) }?;
        lane.mark(turn)?;
        source = source.saturating_add(ByteLen::from_usize(chunk.len()).get());
        if let Some((turn, chunk)) = arriving.replace((turn, chunk)) {
            lane.wait_for(turn)?;
            chunk.copy_from_slice(bounce.part(turn, chunk.len()));
        }
    }
    if let Some((turn, chunk)) = arriving {
        lane.wait_for(turn)?;
        chunk.copy_from_slice(bounce.part(turn, chunk.len()));
    }
    Ok(())
}

impl Bound<'_> {
    /// Runs a copy on a lane with a pair of buffers, and wipes the buffers afterwards.
    pub(super) fn through_bounce(
        &self,
        copy: impl FnOnce(&Lane, &mut Bounce) -> Result<(), u32>,
    ) -> Result<(), GpuError> {
        let mut bounce = self.bounce()?;
        let outcome = self.on_lane(|lane| copy(lane, &mut bounce));
        if self.port().core.lost().is_some() {
            // The device may still use the buffers, so their pages are kept until its context is
            // destroyed.
            for pages in bounce.into_pages() {
                self.port().core.bury(pages);
            }
        } else {
            bounce.wipe();
            self.put_bounce(bounce);
        }
        outcome
    }
}
