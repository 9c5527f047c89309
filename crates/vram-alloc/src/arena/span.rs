//! A run of bytes of a region, and where a piece lies in it.

/// The end of a hole from which a placement is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Low,
    High,
}

/// A run of bytes, `start..end`, in raw offsets below 2⁴⁸.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Span {
    pub(crate) fn len(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// The start for `len` bytes aligned to `align` inside this span, at the wanted end.
    pub(super) fn cut(self, len: u64, align: u64, end: End) -> Option<u64> {
        // `align` is a power of two: clearing the low bits rounds down.
        let low_bits = align.wrapping_sub(1);
        let start = match end {
            End::Low => self.start.checked_add(low_bits)? & !low_bits,
            End::High => self.end.checked_sub(len)? & !low_bits,
        };
        let fits = start >= self.start && start.checked_add(len)? <= self.end;
        fits.then_some(start)
    }
}
