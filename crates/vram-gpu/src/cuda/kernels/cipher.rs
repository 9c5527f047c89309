//! ChaCha20-Poly1305 of segments: tags, opening, sealing.

use super::super::allocation::Span;
use super::job::{Job, SLICE_MAX, Slice, Writer};
use super::module::Function;
use super::slot::{Layout, SLOT_LEN, Slot};

/// Segments of one launch.
const SEGMENTS_MAX: usize = 4096;

const SEGMENT_LEN: usize = 32;
const KEY_LEN: usize = 32;
const TAG_LEN: usize = 16;
const VERDICT_LEN: usize = 4;

const _: () =
    assert!(SEGMENTS_MAX * (SEGMENT_LEN + KEY_LEN + 2 * TAG_LEN + VERDICT_LEN) + 256 <= SLOT_LEN);

/// What `chacha_open` writes for a segment, and nothing else: where neither stands, it did not run.
const GOOD: u32 = 0x600D_600D;
const BAD: u32 = 0xBAD0_BAD0;

/// A segment, checked.
#[derive(Clone, Copy)]
pub(super) struct CipherAt {
    pub(super) source: Span,
    pub(super) target: u64,
    pub(super) index: u32,
    pub(super) last: bool,
}

/// The kernels for it.
#[derive(Clone, Copy)]
pub(super) struct CipherKernels {
    pub(super) tag: Function,
    pub(super) open: Function,
    pub(super) seal: Function,
}

/// What is done with the segments.
#[derive(Clone, Copy)]
pub(super) enum Act<'a> {
    Tag,
    Seal,
    /// Under these tags.
    Open(&'a [[u8; 16]]),
}

/// Work on a list of segments.
pub(super) struct Ciphering<'a> {
    pub(super) kernels: CipherKernels,
    pub(super) act: Act<'a>,
    pub(super) spans: &'a [CipherAt],
    pub(super) keys: &'a [[u8; 32]],
    /// Of [`Act::Tag`] and [`Act::Seal`].
    pub(super) tags: Vec<[u8; 16]>,
    /// Of [`Act::Open`]; none where the word of the device means nothing.
    pub(super) verdicts: Vec<Option<bool>>,
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

impl<'a> Ciphering<'a> {
    pub(super) const fn new(
        kernels: CipherKernels,
        act: Act<'a>,
        spans: &'a [CipherAt],
        keys: &'a [[u8; 32]],
    ) -> Self {
        Self { kernels, act, spans, keys, tags: Vec::new(), verdicts: Vec::new() }
    }

    /// How many segments from the start of these are a slice.
    fn fitting(spans: &[CipherAt]) -> usize {
        let mut bytes = 0_u64;
        let fits = spans.iter().take(SEGMENTS_MAX).take_while(|at| {
            bytes = bytes.saturating_add(wide(at.source.len));
            bytes <= SLICE_MAX
        });
        fits.count().max(1)
    }
}

/// Items of a list from `first` on, `count` of them.
fn part<T>(list: &[T], first: usize, count: usize) -> &[T] {
    list.get(first..).and_then(|rest| rest.get(..count)).unwrap_or_default()
}

impl Job for Ciphering<'_> {
    fn len(&self) -> usize {
        self.spans.len()
    }

    /// Segments, keys, and tags if there are any, each list behind the one before.
    fn stage(&self, first: usize, buffer: &mut [u8]) -> Slice {
        let count = Self::fitting(self.spans.get(first..).unwrap_or_default());
        let mut writer = Writer::new(buffer);
        for at in part(self.spans, first, count) {
            writer.put_u64(at.source.start);
            writer.put_u64(at.target);
            let len = u32::try_from(at.source.len).unwrap_or(u32::MAX);
            for number in [len, at.index, u32::from(at.last), 0] {
                writer.put_u32(number);
            }
        }
        for key in part(self.keys, first, count) {
            writer.put(key);
        }
        let result = match self.act {
            Act::Open(tags) => {
                for tag in part(tags, first, count) {
                    writer.put(tag);
                }
                VERDICT_LEN
            }
            Act::Tag | Act::Seal => TAG_LEN,
        };
        let layout = Layout::new(writer.written(), count.saturating_mul(result));
        let items = u32::try_from(count).unwrap_or(u32::MAX);
        Slice { first, count, items, merges: 0, layout }
    }

    unsafe fn launch(&self, slice: &Slice, slot: &Slot) -> Result<(), u32> {
        let after = |each: usize| slice.count.saturating_mul(each);
        let at = |offset: usize| slot.start().saturating_add(wide(offset));
        let (list, keys) = (at(0), at(after(SEGMENT_LEN)));
        let (tags, results) =
            (at(after(SEGMENT_LEN.saturating_add(KEY_LEN))), at(slice.layout.results));
        let (blocks, stream) = (slice.items, slot.stream());
        // SAFETY, of all three: the kernel reads as many segments and keys (and tags) as it has
        // blocks, and the spans that they name, which live as the caller promises; it writes their
        // targets, which live too, and as many results into the slot.
        match self.act {
            // SAFETY: as above.
            Act::Tag => unsafe {
                self.kernels.tag.launch(blocks, stream, [list, keys, results, 1])
            },
            // SAFETY: as above.
            Act::Seal => unsafe {
                self.kernels.seal.launch(blocks, stream, [list, keys, results, 1])
            },
            // SAFETY: as above.
            Act::Open(_) => unsafe {
                self.kernels.open.launch(blocks, stream, [list, keys, tags, results, 1])
            },
        }
    }

    fn collect(&mut self, _slice: &Slice, results: &[u8]) {
        if let Act::Open(_) = self.act {
            self.verdicts.extend(results.as_chunks().0.iter().map(
                |word| match u32::from_le_bytes(*word) {
                    GOOD => Some(true),
                    BAD => Some(false),
                    _ => None,
                },
            ));
        } else {
            self.tags.extend_from_slice(results.as_chunks::<TAG_LEN>().0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_ends_where_bytes_or_segments_do() {
        let fitting = |count, len| {
            let source = Span { start: 0, len };
            Ciphering::fitting(&vec![CipherAt { source, target: 0, index: 0, last: false }; count])
        };
        assert_eq!(fitting(3, 0), 3);
        assert_eq!(fitting(5000, 16), SEGMENTS_MAX);
        assert_eq!(fitting(5000, 16 << 20), 16);
        assert_eq!(fitting(5000, (16 << 20) - 1), 16);
    }
}
