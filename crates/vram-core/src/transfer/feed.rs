//! A source as windows of bytes.

use vram_alloc::{ByteLen, ByteRange};
use vram_files::{Access, Feed, FileError, Source};
use vram_seal::{Protection, SivScope};

use crate::error::VramError;
use crate::sync::Mutex;

/// A source as the sealing pass takes it.
pub(crate) struct SourceFeed<'s> {
    source: &'s dyn Source,
    // Asked once each: a source that answers differently the next time is not asked again.
    len: ByteLen,
    slice: Option<&'s [u8]>,
    /// The next window of a source that can only be read in order.
    turn: Option<Mutex<u64>>,
    model_id: &'s str,
}

impl<'s> SourceFeed<'s> {
    pub(crate) fn new(source: &'s dyn Source, model_id: &'s str) -> Self {
        let len = ByteLen::new(source.len());
        let slice =
            source.as_slice().filter(|slice| ByteLen::from_usize(<[u8]>::len(slice)) == len);
        let turn = match source.access() {
            Access::Sequential if slice.is_none() => Some(Mutex::new(0)),
            _ => None,
        };
        Self { source, len, slice, turn, model_id }
    }

    /// The scope where the request names none.
    pub(crate) const fn scope(&self) -> SivScope {
        if self.slice.is_some() { SivScope::Shard } else { SivScope::Segment }
    }

    /// # Errors
    ///
    /// [`VramError::Config`] for two passes over something that can be read once.
    pub(crate) fn check_scope(
        &self,
        protection: Protection,
        scope: Option<SivScope>,
    ) -> Result<(), VramError> {
        let two_passes = protection != Protection::Authenticated
            && scope.unwrap_or(self.scope()) == SivScope::Shard;
        if two_passes && self.turn.is_some() {
            return Err(VramError::config(
                "scope Shard reads its source twice, and this one can be read only once: use \
                 scope Segment",
            ));
        }
        Ok(())
    }

    /// Called after the last byte was read.
    pub(crate) fn finish(&self) -> Result<(), VramError> {
        Ok(self.source.finish().map_err(|error| error.while_sealing(self.model_id))?)
    }
}

impl Feed for SourceFeed<'_> {
    fn len(&self) -> ByteLen {
        self.len
    }

    fn fill(&self, range: ByteRange, target: &mut [u8]) -> Result<(), FileError> {
        match self.slice {
            Some(slice) => slice.fill(range, target),
            // The one empty window of an empty shard: there is nothing to ask for.
            None if target.is_empty() => Ok(()),
            None => self
                .source
                .read_at(range.start().get(), target)
                .map_err(|error| error.while_sealing(self.model_id)),
        }
    }

    fn slice(&self) -> Option<&[u8]> {
        self.slice
    }

    fn turn(&self) -> Option<&Mutex<u64>> {
        self.turn.as_ref()
    }
}
