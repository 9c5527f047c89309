//! The bytes of an answer, in the pieces in which they came.
//!
//! A client for HTTP receives a range in pieces of some KiB. Joining them would be one more pass over all
//! bytes, so each is copied where it is needed at last.

use core::ops::Range;

use bytes::Bytes;
use vram_alloc::host;

/// Bytes in pieces.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body {
    /// Each piece, and where it ends.
    pieces: Vec<(usize, Bytes)>,
}

impl Body {
    pub(crate) fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.pieces.push((self.len().saturating_add(piece.len()), piece));
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.pieces.last().map_or(0, |(end, _)| *end)
    }

    /// Copies the bytes from `at` on to `target`, and returns how many there were.
    pub(crate) fn copy_to(&self, at: usize, target: &mut [u8]) -> usize {
        let first = self.pieces.partition_point(|(end, _)| *end <= at);
        let mut done = 0_usize;
        for (end, piece) in self.pieces.get(first..).unwrap_or_default() {
            let Some(rest) = target.get_mut(done..).filter(|rest| !rest.is_empty()) else { break };
            let start = end.saturating_sub(piece.len());
            let skip = at.saturating_add(done).saturating_sub(start);
            done = done.saturating_add(host::copy(piece.get(skip..).unwrap_or_default(), rest));
        }
        done
    }

    /// These bytes, if they lie in one piece.
    pub(crate) fn slice(&self, range: Range<usize>) -> Option<&[u8]> {
        let at = self.pieces.partition_point(|(end, _)| *end <= range.start);
        let (end, piece) = self.pieces.get(at)?;
        let start = end.saturating_sub(piece.len());
        piece.get(range.start.checked_sub(start)?..range.end.checked_sub(start)?)
    }

    /// The pieces, in order.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(|(_, piece)| &**piece)
    }

    /// All bytes in one piece.
    pub(crate) fn into_vec(mut self) -> Vec<u8> {
        if self.pieces.len() <= 1 {
            return self.pieces.pop().map_or_else(Vec::new, |(_, piece)| piece.into());
        }
        let mut all = Vec::with_capacity(self.len());
        self.pieces().for_each(|piece| all.extend_from_slice(piece));
        all
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from(Bytes::from(bytes))
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        let mut body = Self::default();
        body.push(bytes);
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_range_of_the_pieces_is_that_of_the_whole() {
        let whole: Vec<u8> = (0..100).collect();
        for cuts in [vec![], vec![50], vec![1, 2, 3, 99], vec![0, 0, 10, 100]] {
            let (mut body, mut from) = (Body::default(), 0);
            for cut in cuts.iter().copied().chain([whole.len()]) {
                body.push(Bytes::copy_from_slice(&whole[from..cut]));
                from = cut;
            }
            assert_eq!(body.len(), 100);
            for start in 0..=100 {
                for end in start..=100 {
                    let mut target = vec![0xFF; end - start];
                    assert_eq!(body.copy_to(start, &mut target), end - start, "{cuts:?}");
                    assert_eq!(target, whole[start..end], "{cuts:?}: {start}..{end}");
                    if let Some(slice) = body.slice(start..end) {
                        assert_eq!(slice, &whole[start..end], "{cuts:?}: {start}..{end}");
                    }
                }
            }
            assert_eq!(body.copy_to(90, &mut [0; 20]), 10, "there are no more");
            assert_eq!(body.copy_to(200, &mut [0; 20]), 0);
            assert!(body.slice(99..101).is_none());
            assert_eq!(body.pieces().map(<[u8]>::len).sum::<usize>(), 100);
            assert_eq!(body.into_vec(), whole);
        }
        assert!(Body::default().slice(0..0).is_none());
        assert_eq!(Body::from(whole.clone()).slice(3..7), Some(&whole[3..7]));
    }
}
