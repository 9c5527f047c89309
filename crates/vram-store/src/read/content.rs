//! The content of an image in a store, at any position: for repairing a resident shard.

use core::fmt;
use std::io;
use std::sync::Arc;

use vram_alloc::{ByteLen, ByteOffset, ByteRange};
use vram_files::{Source, SourceError};
use zeroize::Zeroizing;

use super::{ImageRead, Proof};
use crate::error::StoreError;
use crate::fetch::Step;

/// Called after a range was read: a source may have lied.
type Met<'a> = Box<dyn Fn(&ImageRead<'_, '_>) + Send + Sync + 'a>;

/// The plaintext of an image as a [`Source`]: every byte that it returns was opened under the key, at
/// the segment where it belongs. Sources that lie are named and left out.
pub struct StoreContent<'a, 'o> {
    read: ImageRead<'a, 'o>,
    met: Met<'a>,
    proof: Proof,
}

impl<'a, 'o> StoreContent<'a, 'o> {
    pub(crate) fn open(read: ImageRead<'a, 'o>, met: Met<'a>) -> Result<Self, StoreError> {
        let head = read.head();
        met(&read);
        let proof = Proof::keyed(head?)?.0;
        Ok(Self { read, met, proof })
    }

    fn fill(&self, offset: u64, target: &mut [u8]) -> Result<(), StoreError> {
        let Proof::Keyed { opener, data_offset, .. } = &self.proof else {
            return Err(StoreError::config("content is opened with its key"));
        };
        let layout = opener.layout();
        let len = ByteLen::from_usize(target.len());
        let wanted = ByteRange::checked(ByteOffset::new(offset), len, layout.plaintext_len())
            .map_err(|error| StoreError::config(error.to_string()))?;
        let segments = layout.covering(wanted)?;
        let unit = layout.segment_size().bytes().get();
        let per = self.read.options.limits.range_len.checked_div(unit).unwrap_or(1).max(1);
        let (mut at, mut rest) = (segments.start, target);
        while at < segments.end {
            let end = at.saturating_add(per).min(segments.end);
            let Some(span) = layout.span(&(at..end)) else { break };
            let start = data_offset.saturating_add(span.start().get());
            let range = start..data_offset.saturating_add(span.end().get());
            let step = Step { first: at, count: end.saturating_sub(at), range };
            let (sources, asked) = (Arc::clone(&self.read.sources), step.range.clone());
            let image_len = self.read.shard.image_len;
            let fetch = async move { sources.fetch(asked, image_len).await };
            let fetched = self.read.options.wait(fetch)?;
            self.read.sources.tell(self.read.options);
            let proven = self.read.prove(&self.proof, &step, fetched);
            (self.met)(&self.read);
            let proven = proven?;
            let mut bytes = Zeroizing::new(proven.bytes.into_vec());
            let mut sealed = &mut bytes[..];
            for segment in at..end {
                let here = layout.range(segment).map_or(0, |range| range.len().get());
                let here = usize::try_from(here).unwrap_or(usize::MAX);
                let Some((one, behind)) = sealed.split_at_mut_checked(here) else { break };
                opener.open_segment(segment, one)?;
                sealed = behind;
            }
            // The part of these segments that was asked for.
            let skip = offset.max(span.start().get()).saturating_sub(span.start().get());
            let plain =
                bytes.get(usize::try_from(skip).unwrap_or(usize::MAX)..).unwrap_or_default();
            let count = plain.len().min(rest.len());
            let (here, behind) = rest.split_at_mut(count);
            here.copy_from_slice(plain.get(..count).unwrap_or_default());
            (rest, at) = (behind, end);
        }
        Ok(())
    }
}

impl Source for StoreContent<'_, '_> {
    fn len(&self) -> u64 {
        self.read.shard.plaintext_len
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> Result<(), SourceError> {
        let name = self.read.shard.image.to_string();
        let failed = |error: StoreError| SourceError::io(name, io::Error::other(error));
        self.fill(offset, target).map_err(failed)
    }
}

impl fmt::Debug for StoreContent<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreContent")
            .field("image", &self.read.shard.image)
            .finish_non_exhaustive()
    }
}
