//! The division of a shard into segments: the units of sealing, opening and verifying.

use core::ops::Range;

use vram_alloc::{ByteLen, ByteOffset, ByteRange};

use crate::error::SealError;

/// The longest shard that the format supports: 2^48 bytes.
pub const PLAINTEXT_LEN_MAX: ByteLen = ByteLen::new(1 << 48);

/// The most segments of a shard: 2^24. Its table then has at most 768 MiB.
pub const SEGMENT_COUNT_MAX: u64 = 1 << 24;

/// The length of every segment but the last: a power of two from 4 KiB to 16 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentSize {
    // Invariant: 12 <= log2 <= 24.
    log2: u8,
}

impl SegmentSize {
    /// 256 KiB: small enough for a core's second-level cache, large enough that the cost of tags is
    /// negligible.
    pub const DEFAULT: Self = Self { log2: 18 };
    /// 4 KiB.
    pub const MIN: Self = Self { log2: 12 };
    /// 16 MiB.
    pub const MAX: Self = Self { log2: 24 };

    /// A segment of `2^log2` bytes.
    ///
    /// # Errors
    ///
    /// [`SealError::SegmentSize`] unless `log2` is in `12..=24`.
    pub const fn from_log2(log2: u8) -> Result<Self, SealError> {
        if log2 < Self::MIN.log2 || log2 > Self::MAX.log2 {
            let found = if log2 < 64 { 1_u64 << log2 } else { 0 };
            return Err(SealError::SegmentSize { found });
        }
        Ok(Self { log2 })
    }

    /// A segment of `len` bytes.
    ///
    /// # Errors
    ///
    /// [`SealError::SegmentSize`] unless it is a power of two from 4 KiB to 16 MiB.
    pub const fn from_bytes(len: ByteLen) -> Result<Self, SealError> {
        let mut log2 = Self::MIN.log2;
        while log2 <= Self::MAX.log2 {
            if 1 << log2 == len.get() {
                return Ok(Self { log2 });
            }
            log2 = log2.saturating_add(1);
        }
        Err(SealError::SegmentSize { found: len.get() })
    }

    /// The size of the shortest segments that divide `len` bytes into at most 2^24.
    const fn enough_for(len: ByteLen) -> ByteLen {
        let mut log2 = Self::MIN.log2;
        while log2 < Self::MAX.log2 && len.get().div_ceil(1 << log2) > SEGMENT_COUNT_MAX {
            log2 = log2.saturating_add(1);
        }
        ByteLen::new(1 << log2)
    }

    /// The binary logarithm of the size in bytes, as the record holds it.
    #[must_use]
    pub const fn log2(self) -> u8 {
        self.log2
    }

    /// The size.
    #[must_use]
    pub const fn bytes(self) -> ByteLen {
        ByteLen::new(1 << self.log2)
    }
}

impl Default for SegmentSize {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The segments of a shard of a given length.
///
/// An empty shard has one empty segment, so that its content is authenticated like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SegmentLayout {
    // Invariant: len <= PLAINTEXT_LEN_MAX, count == max(1, ceil(len / size)) <= SEGMENT_COUNT_MAX.
    len: ByteLen,
    size: SegmentSize,
    count: u64,
}

impl SegmentLayout {
    /// Divides `len` bytes into segments of `size`.
    ///
    /// # Errors
    ///
    /// [`SealError::TooLong`] beyond 2^48 bytes, [`SealError::TooManySegments`] beyond 2^24
    /// segments.
    pub fn new(len: ByteLen, size: SegmentSize) -> Result<Self, SealError> {
        if len.get() > PLAINTEXT_LEN_MAX.get() {
            return Err(SealError::TooLong { len, max: PLAINTEXT_LEN_MAX });
        }
        let count = match len.get().div_ceil(1 << size.log2) {
            0 => 1,
            some => some,
        };
        if count > SEGMENT_COUNT_MAX {
            let enough = SegmentSize::enough_for(len);
            return Err(SealError::TooManySegments { len, segment: size.bytes(), enough });
        }
        Ok(Self { len, size, count })
    }

    /// The number of segments: at least one.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The length of all segments together.
    #[must_use]
    pub const fn plaintext_len(&self) -> ByteLen {
        self.len
    }

    /// The length of every segment but the last.
    #[must_use]
    pub const fn segment_size(&self) -> SegmentSize {
        self.size
    }

    /// Where segment `segment` lies in the shard, or `None` if there is no such segment.
    #[must_use]
    pub fn range(&self, segment: u64) -> Option<ByteRange> {
        if segment >= self.count {
            return None;
        }
        let start = segment.checked_mul(self.size.bytes().get())?;
        let len = self.len.get().checked_sub(start)?.min(self.size.bytes().get());
        ByteRange::checked(ByteOffset::new(start), ByteLen::new(len), self.len).ok()
    }

    /// The segments that hold at least one byte of `range`: none for an empty range.
    ///
    /// # Errors
    ///
    /// [`SealError::OutOfBounds`] if the range was checked against a longer shard than this one.
    pub fn covering(&self, range: ByteRange) -> Result<Range<u64>, SealError> {
        let (start, end) = (range.start().get(), range.end().get());
        if end > self.len.get() {
            return Err(SealError::OutOfBounds { start, end, len: self.len });
        }
        let first = start >> self.size.log2;
        if range.is_empty() {
            return Ok(first..first);
        }
        Ok(first..end.div_ceil(self.size.bytes().get()))
    }

    /// The bytes of those segments, from the start of the first to the end of the last.
    #[must_use]
    pub fn span(&self, segments: &Range<u64>) -> Option<ByteRange> {
        let start = self.range(segments.start)?.start();
        let last = segments.end.checked_sub(1).filter(|last| *last >= segments.start)?;
        let end = self.range(last)?.end();
        let len = end.get().checked_sub(start.get())?;
        ByteRange::checked(start, ByteLen::new(len), self.len).ok()
    }

    /// Length in bytes; 0 for a segment that does not exist.
    pub(crate) fn len_of(&self, segment: u64) -> u64 {
        self.range(segment).map_or(0, |range| range.len().get())
    }

    pub(crate) const fn is_last(&self, segment: u64) -> bool {
        segment == self.count.saturating_sub(1)
    }

    /// Checks that the segment exists and that a buffer has its length.
    pub(crate) fn check(&self, segment: u64, buffer: &[u8]) -> Result<(), SealError> {
        let Some(range) = self.range(segment) else {
            return Err(SealError::NoSuchSegment { segment, count: self.count });
        };
        let expected = range.len().get();
        let found = ByteLen::from_usize(buffer.len()).get();
        if expected == found {
            Ok(())
        } else {
            Err(SealError::WrongLength { what: "the segment's buffer", expected, found })
        }
    }

    /// Checks that a buffer has the length of the whole shard.
    pub(crate) fn check_whole(&self, what: &'static str, buffer: &[u8]) -> Result<(), SealError> {
        let found = ByteLen::from_usize(buffer.len()).get();
        if found == self.len.get() {
            Ok(())
        } else {
            Err(SealError::WrongLength { what, expected: self.len.get(), found })
        }
    }

    /// The segment size as `usize`; exact on every host that can hold one segment in memory.
    pub(crate) fn segment_usize(&self) -> usize {
        self.size.bytes().to_usize().unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(len: u64) -> SegmentLayout {
        SegmentLayout::new(ByteLen::new(len), SegmentSize::MIN).expect("short enough")
    }

    #[test]
    fn only_powers_of_two_from_4_kib_to_16_mib_are_segment_sizes() {
        for log2 in 0..=u8::MAX {
            assert_eq!(SegmentSize::from_log2(log2).is_ok(), (12..=24).contains(&log2));
        }
        for bytes in [0, 1, 4095, 4097, 3 << 12, 1 << 25, u64::MAX] {
            assert_eq!(
                SegmentSize::from_bytes(ByteLen::new(bytes)),
                Err(SealError::SegmentSize { found: bytes })
            );
        }
        assert_eq!(SegmentSize::from_bytes(ByteLen::new(1 << 18)), Ok(SegmentSize::DEFAULT));
    }

    #[test]
    fn segments_tile_the_shard_and_an_empty_shard_has_one() {
        for (len, count) in
            [(0, 1), (1, 1), (4095, 1), (4096, 1), (4097, 2), (8192, 2), (12_293, 4)]
        {
            let layout = layout(len);
            assert_eq!(layout.count(), count, "{len} bytes");
            let mut at = 0;
            for segment in 0..count {
                let range = layout.range(segment).expect("it exists");
                assert_eq!(range.start().get(), at);
                at = range.end().get();
            }
            assert_eq!(at, len);
            assert_eq!(layout.range(count), None);
            assert_eq!(layout.range(u64::MAX), None);
        }
    }

    #[test]
    fn a_shard_beyond_the_format_is_refused() {
        let longest = SegmentLayout::new(PLAINTEXT_LEN_MAX, SegmentSize::MAX).expect("allowed");
        assert_eq!(longest.count(), 1 << 24);
        assert!(longest.range((1 << 24) - 1).is_some());
        for len in [(1 << 48) + 1, u64::MAX] {
            assert!(matches!(
                SegmentLayout::new(ByteLen::new(len), SegmentSize::MAX),
                Err(SealError::TooLong { .. })
            ));
        }
    }

    #[test]
    fn a_shard_of_more_than_2_24_segments_is_refused_and_told_a_size_that_would_do() {
        for log2 in 12..24 {
            let size = SegmentSize::from_log2(log2).expect("allowed");
            let most = (1_u64 << 24) << log2;
            let full = SegmentLayout::new(ByteLen::new(most), size).expect("just allowed");
            assert_eq!(full.count(), SEGMENT_COUNT_MAX);
            let len = ByteLen::new(most + 1);
            let refused = SegmentLayout::new(len, size);
            let Err(SealError::TooManySegments { enough, .. }) = refused else {
                panic!("{refused:?}");
            };
            assert_eq!(enough.get(), 2 << log2, "the next size");
            let enough = SegmentSize::from_bytes(enough).expect("a size of the format");
            assert!(SegmentLayout::new(len, enough).is_ok());
        }
        let tib = ByteLen::new((4 << 40) + 1);
        let refused = SegmentLayout::new(tib, SegmentSize::DEFAULT).expect_err("too many");
        let says = refused.to_string();
        assert!(says.ends_with("segments of 512.0 KiB (524288 bytes) would do"), "{says}");
    }

    #[test]
    fn covering_touches_no_segment_more_than_the_range_does() {
        let layout = layout(10_000);
        let covering = |offset, len| {
            let range = ByteRange::checked(
                ByteOffset::new(offset),
                ByteLen::new(len),
                layout.plaintext_len(),
            )
            .expect("inside");
            layout.covering(range).expect("inside")
        };
        assert_eq!(covering(0, 1), 0..1);
        assert_eq!(covering(4095, 1), 0..1);
        assert_eq!(covering(4095, 2), 0..2);
        assert_eq!(covering(4096, 4096), 1..2);
        assert_eq!(covering(0, 10_000), 0..3);
        assert!(covering(10_000, 0).is_empty());
        assert!(covering(0, 0).is_empty());
        assert_eq!(layout.span(&(1..3)).map(|span| span.len().get()), Some(10_000 - 4096));
        assert_eq!(layout.span(&(1..1)), None);
        assert_eq!(layout.span(&(2..4)), None);

        let longer =
            ByteRange::checked(ByteOffset::new(9_999), ByteLen::new(2), ByteLen::new(20_000))
                .expect("inside something else");
        assert!(matches!(layout.covering(longer), Err(SealError::OutOfBounds { .. })));
    }
}
