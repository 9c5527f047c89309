//! Fingerprints of spans under one key, or under two in one pass.

use super::super::allocation::Span;
use super::job::{Job, SLICE_MAX, Slice, Writer};
use super::module::Function;
use super::slot::{Layout, SLOT_LEN, Slot};
use crate::kernels::{Fingerprint, FingerprintKey, Fingerprints};

/// Items of one launch.
const ITEMS_MAX: usize = 8192;

const ITEM_LEN: usize = 16;
const VALUE_LEN: usize = 16;

// Two keys, items, and two values each.
const _: () = assert!(
    2 * FingerprintKey::LEN + ITEMS_MAX * ITEM_LEN + 256 + ITEMS_MAX * 2 * VALUE_LEN <= SLOT_LEN
);

/// The kernels for it, and how many blocks keep the device busy.
#[derive(Clone, Copy)]
pub(super) struct FingerprintKernels {
    pub(super) one: Function,
    pub(super) renew: Function,
    pub(super) blocks: u32,
}

/// Fingerprints of a list of spans.
pub(super) struct Fingerprinting<'a> {
    pub(super) kernels: FingerprintKernels,
    pub(super) spans: &'a [Span],
    pub(super) key: &'a FingerprintKey,
    pub(super) renewed: Option<&'a FingerprintKey>,
    pub(super) values: Vec<Fingerprints>,
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

impl Fingerprinting<'_> {
    /// How many spans from the start of these are a slice.
    fn fitting(spans: &[Span]) -> usize {
        let mut bytes = 0_u64;
        let fits = spans.iter().take(ITEMS_MAX).take_while(|span| {
            bytes = bytes.saturating_add(wide(span.len));
            bytes <= SLICE_MAX
        });
        fits.count().max(1)
    }

    /// Values of a span: one, or two.
    fn values_each(&self) -> usize {
        if self.renewed.is_some() { 2 } else { 1 }
    }
}

impl Job for Fingerprinting<'_> {
    fn len(&self) -> usize {
        self.spans.len()
    }

    fn stage(&self, first: usize, buffer: &mut [u8]) -> Slice {
        let rest = self.spans.get(first..).unwrap_or_default();
        let count = Self::fitting(rest);
        let mut writer = Writer::new(buffer);
        writer.put(self.key.as_bytes());
        if let Some(renewed) = self.renewed {
            writer.put(renewed.as_bytes());
        }
        for (out, span) in (0_u32..).zip(rest.iter().take(count)) {
            writer.put_u64(span.start);
            writer.put_u32(u32::try_from(span.len).unwrap_or(u32::MAX));
            writer.put_u32(out);
        }
        let values = count.saturating_mul(self.values_each()).saturating_mul(VALUE_LEN);
        let layout = Layout::new(writer.written(), values);
        let items = u32::try_from(count).unwrap_or(u32::MAX);
        Slice { first, count, items, merges: 0, layout }
    }

    unsafe fn launch(&self, slice: &Slice, slot: &Slot) -> Result<(), u32> {
        let at = |offset: usize| slot.start().saturating_add(wide(offset));
        let keys = self.values_each().saturating_mul(FingerprintKey::LEN);
        let (key, list, values) = (at(0), at(keys), at(slice.layout.results));
        let blocks = slice.items.min(self.kernels.blocks).max(1);
        let count = u64::from(slice.items);
        if self.renewed.is_some() {
            let parameters = [list, count, key, at(FingerprintKey::LEN), values];
            // SAFETY: `fingerprint_renew` reads two keys, `count` items and the spans that they
            // name, which live as the caller promises, and writes two values an item to the slot.
            unsafe { self.kernels.renew.launch(blocks, slot.stream(), parameters) }
        } else {
            let parameters = [list, count, key, values];
            // SAFETY: as above, with one key and one value an item.
            unsafe { self.kernels.one.launch(blocks, slot.stream(), parameters) }
        }
    }

    fn collect(&mut self, _slice: &Slice, results: &[u8]) {
        let mut values =
            results.as_chunks::<VALUE_LEN>().0.iter().map(|value| Fingerprint::new(*value));
        while let Some(value) = values.next() {
            let renewed = if self.renewed.is_some() { values.next() } else { None };
            self.values.push(Fingerprints { value, renewed });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_ends_where_bytes_or_items_do() {
        let spans = |count, len| vec![Span { start: 0, len }; count];
        let fitting = |count, len| Fingerprinting::fitting(&spans(count, len));
        assert_eq!(fitting(3, 5), 3);
        assert_eq!(fitting(9000, 16), ITEMS_MAX);
        assert_eq!(fitting(2000, 256 << 10), 1024);
        assert_eq!(fitting(2000, (256 << 10) - 1), 1024);
    }
}
