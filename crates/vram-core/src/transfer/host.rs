//! The bytes that are kept of a parked shard in host memory, and their way back to a device.

use std::sync::Arc;

use vram_alloc::{ByteLen, ByteRange};
use vram_seal::{Checked, Protection, SealError, SealParams, SivScope};
use vram_space::{Worker, locate};

use crate::error::VramError;
use crate::shard::{HostCopy, Seal, View};
use crate::transfer::Window;
use crate::transfer::kernels::Looked;
use crate::transfer::read;
use crate::transfer::walk::{is_altered, send};

/// The parameters of the seal under which an Authenticated shard is parked: one pass, so scope
/// Segment.
pub(crate) fn parked_params(view: &View) -> SealParams {
    view.seal.params.with_protection(Protection::Encrypted).with_scope(SivScope::Segment)
}

/// Host bytes that parking a shard of `len` takes: the sealed bytes, and a segment table if one is
/// made.
pub(crate) fn needed(seal: &Seal, len: ByteLen) -> ByteLen {
    match seal.protection() {
        Protection::Encrypted => len,
        // Scope Segment stores 48 bytes for each segment.
        _ => ByteLen::new(seal.opener.layout().count().saturating_mul(48)).saturating_add(len),
    }
}

impl HostCopy {
    /// Writes a host copy to the device, and looks at every segment at its new placement. Returns
    /// what that rests on.
    pub(crate) fn copy_in(&self, view: &View) -> Result<Checked, VramError> {
        let refused = |error| match error {
            VramError::Seal(SealError::SegmentMismatch { segment }) => VramError::ParkedAltered {
                shard: self.entry.id.clone(),
                segments: vec![segment].into(),
            },
            other => other,
        };
        self.write_to(view).map_err(refused)?;
        let Looked { altered: arrived_altered, checked } = view.look_at_arrival()?;
        if arrived_altered.is_empty() {
            return Ok(checked);
        }
        // Either the host copy was altered, or the transfer altered the bytes. Checking the host
        // copy decides which.
        let segments = self.altered()?;
        if segments.is_empty() {
            let gpu = view.gpu.index;
            return Err(VramError::WriteNotKept { gpu, segments: arrived_altered.into() });
        }
        Err(VramError::ParkedAltered { shard: self.entry.id.clone(), segments: segments.into() })
    }

    fn write_to(&self, view: &View) -> Result<(), VramError> {
        let windows = view.windows()?;
        windows.run(&view.gpu, windows.buffers(), windows.count(), |worker, index| {
            windows.get(index).map_or(Ok(()), |window| self.write_window(worker, view, &window))
        })
    }

    fn write_window(
        &self,
        worker: &mut Worker<'_>,
        view: &View,
        window: &Window,
    ) -> Result<(), VramError> {
        let staging = worker.buffer()?;
        send(worker, staging, |buffer| {
            self.fill(window, buffer)?;
            if window.bytes.is_empty() {
                return Ok(None);
            }
            let to = locate(view.range, window.bytes)?;
            Ok(Some((view.memory()?, to)))
        })
    }

    /// Fills the start of `buffer` with the bytes that device memory must hold for this window.
    fn fill(&self, window: &Window, buffer: &mut [u8]) -> Result<(), VramError> {
        let refused = || VramError::HostMemory { wanted: window.bytes.len() };
        let source = self.part(window.bytes).ok_or_else(refused)?;
        let buffer = buffer.get_mut(..source.len()).ok_or_else(refused)?;
        buffer.copy_from_slice(source);
        if Arc::ptr_eq(&self.backup.seal, &self.backup.resident) {
            return Ok(());
        }
        let opener = &self.backup.seal.opener;
        window
            .each(opener.layout(), buffer, |segment, bytes| opener.open_segment(segment, bytes))?;
        Ok(())
    }

    fn part(&self, range: ByteRange) -> Option<&[u8]> {
        range.to_usize_range().and_then(|range| self.backup.bytes.get(range))
    }

    /// The segments that differ from what was parked.
    fn altered(&self) -> Result<Vec<u64>, VramError> {
        let opener = &self.backup.seal.opener;
        let layout = opener.layout();
        let longest = layout.segment_size().bytes().min(layout.plaintext_len());
        let mut scratch = read::scratch(longest)?;
        let mut altered = Vec::new();
        for segment in 0..layout.count() {
            let sealed = layout.range(segment).and_then(|range| self.part(range)).unwrap_or(&[]);
            let Some(scratch) = scratch.get_mut(..sealed.len()) else { continue };
            if is_altered(opener.open_segment_to(segment, sealed, scratch))? {
                altered.push(segment);
            }
        }
        Ok(altered)
    }
}
