//! Copies sealed bytes from the device to host memory. Every segment is opened on the way, so that
//! no altered byte leaves the device.

use core::ops::Range;

use vram_alloc::ByteLen;
use vram_seal::{Hashes, SealError, SealedSegment, open_and_hash};

use crate::error::VramError;
use crate::shard::View;
use crate::transfer::walk::with_window;
use crate::transfer::{Convert, Windows};

/// The form in which the bytes leave the device.
pub(crate) enum Outward<'a> {
    /// The bytes as they lie on the device.
    AsTheyAre {
        /// Receives the hash of each segment, for a caller that compares the content as a whole.
        hashes: Option<&'a Hashes>,
    },
    /// The same content under another seal.
    Anew {
        convert: Convert<'a>,
        /// Called with each segment after it was sealed.
        keep: &'a (dyn Fn(u64, SealedSegment) -> Result<(), SealError> + Sync),
    },
}

impl View {
    /// Fills `out` with the sealed bytes of a run of segments. Every segment in it was opened.
    /// `out` has exactly their length.
    ///
    /// # Errors
    ///
    /// [`VramError::Seal`] with the mismatch of a segment. The bytes in `out` are then useless.
    /// They are no plaintext either, unless the shard is Authenticated and is copied as it is.
    pub(crate) fn copy_out(
        &self,
        segments: Range<u64>,
        out: &mut [u8],
        how: &Outward<'_>,
    ) -> Result<(), VramError> {
        let opener = &self.seal.opener;
        let windows = Windows::on(&self.gpu, *opener.layout())?;
        let jobs = cut(&windows, segments, out)?;
        let count = u64::try_from(jobs.len()).unwrap_or(u64::MAX);
        windows.run_each(&self.gpu, count, jobs.into_iter(), |worker, (window, out)| {
            with_window(worker, self, &window, |bytes| {
                let wanted = window.bytes.len();
                if bytes.len() != out.len() {
                    return Err(VramError::HostMemory { wanted });
                }
                match how {
                    Outward::AsTheyAre { hashes } => {
                        out.copy_from_slice(bytes);
                        // Open the very bytes that were copied to `out`, so that the check is valid
                        // for the copy.
                        window.each(opener.layout(), bytes, |segment, bytes| {
                            let Some(hashes) = hashes else {
                                return opener.open_segment(segment, bytes);
                            };
                            hashes.put(segment, open_and_hash(opener, segment, bytes)?);
                            Ok(())
                        })?;
                    }
                    Outward::Anew { convert, keep } => {
                        convert.window(&windows, &window, bytes, keep)?;
                        out.copy_from_slice(bytes);
                    }
                }
                Ok(())
            })
        })
    }
}

/// Cuts a run of segments, and the memory for it, into windows.
fn cut<'a>(
    windows: &Windows,
    segments: Range<u64>,
    mut out: &'a mut [u8],
) -> Result<Vec<(crate::transfer::Window, &'a mut [u8])>, VramError> {
    let wanted = ByteLen::from_usize(out.len());
    let refused = || VramError::HostMemory { wanted };
    let mut jobs = Vec::new();
    for window in windows.cut(segments) {
        let len = window.bytes.len().to_usize().ok_or_else(refused)?;
        let (part, rest) =
            core::mem::take(&mut out).split_at_mut_checked(len).ok_or_else(refused)?;
        out = rest;
        jobs.push((window, part));
    }
    Ok(jobs)
}
