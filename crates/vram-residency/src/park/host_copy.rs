//! What is kept of a parked shard in host memory, and how it gets back to a device.

use std::sync::Arc;

use vram_alloc::{ByteLen, ByteRange};
use vram_seal::{Protection, SealError, SealParams, SivScope};
use zeroize::Zeroizing;

use crate::error::VramError;
use crate::lanes::Worker;
use crate::parked::HostCopy;
use crate::read::zeroed;
use crate::registry::View;
use crate::space::locate;
use crate::windows::Window;

/// The seal of what is kept of an Authenticated shard: one pass, so scope Segment.
pub(super) fn parked_params(view: &View) -> SealParams {
    view.seal.params.with_protection(Protection::Encrypted).with_scope(SivScope::Segment)
}

impl View {
    /// Host bytes that parking takes: the sealed bytes, and a table where one is made.
    pub(crate) fn needed(&self, len: ByteLen) -> ByteLen {
        match self.seal.protection() {
            Protection::Encrypted => len,
            // Scope Segment keeps 48 bytes for each segment.
            _ => ByteLen::new(self.seal.opener.layout().count().saturating_mul(48))
                .saturating_add(len),
        }
    }
}

impl HostCopy {
    pub(super) fn write_window(
        &self,
        worker: &mut Worker<'_>,
        view: &View,
        window: &Window,
    ) -> Result<(), VramError> {
        let mut staging = worker.buffer()?;
        let outcome = self.fill(window, staging.as_mut_slice());
        if window.bytes.is_empty() {
            worker.put(staging);
            return outcome;
        }
        let ready = outcome
            .and_then(|()| locate(view.range, window.bytes))
            .and_then(|to| view.memory().map(|memory| (memory, to)));
        match ready {
            Ok((memory, to)) => {
                worker.queue_write(&**memory, to.start(), staging, to.len());
                Ok(())
            }
            Err(error) => {
                worker.put(staging);
                Err(error)
            }
        }
    }

    /// Fills the start of `buffer` with what lies in device memory for this window.
    fn fill(&self, window: &Window, buffer: &mut [u8]) -> Result<(), VramError> {
        let refused = || VramError::HostMemory { wanted: window.bytes.len() };
        let source = self.part(window.bytes).ok_or_else(refused)?;
        let buffer = buffer.get_mut(..source.len()).ok_or_else(refused)?;
        buffer.copy_from_slice(source);
        if Arc::ptr_eq(&self.seal, &self.resident) {
            return Ok(());
        }
        let opener = &self.seal.opener;
        window
            .each(opener.layout(), buffer, |segment, bytes| opener.open_segment(segment, bytes))?;
        Ok(())
    }

    fn part(&self, range: ByteRange) -> Option<&[u8]> {
        range.to_usize_range().and_then(|range| self.bytes.get(range))
    }

    /// The segments that are not what was parked.
    pub(super) fn altered(&self) -> Result<Vec<u64>, VramError> {
        let opener = &self.seal.opener;
        let layout = opener.layout();
        let longest = layout.segment_size().bytes().min(layout.plaintext_len());
        let mut scratch = Zeroizing::new(zeroed(longest)?);
        let mut altered = Vec::new();
        for segment in 0..layout.count() {
            let sealed = layout.range(segment).and_then(|range| self.part(range)).unwrap_or(&[]);
            let Some(scratch) = scratch.get_mut(..sealed.len()) else { continue };
            match opener.open_segment_to(segment, sealed, scratch) {
                Ok(()) => {}
                Err(SealError::SegmentMismatch { segment }) => altered.push(segment),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(altered)
    }
}
