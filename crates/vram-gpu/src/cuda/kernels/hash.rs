//! BLAKE3 of spans: items of at most 256 KiB, a block of threads each, and merges of the subtrees of
//! longer spans.

use super::super::allocation::Span;
use super::job::{Job, SLICE_MAX, Slice, Writer};
use super::module::Function;
use super::slot::{Layout, SLOT_LEN, Slot};

/// The most bytes of an item: a thread for each chunk.
const ITEM_MAX: usize = 256 << 10;
/// Bytes of a chunk.
const CHUNK: usize = 1024;

/// Items of one launch.
const ITEMS_MAX: usize = 3072;
/// Values of one launch, of spans; values of subtrees stand behind them.
const VALUES_MAX: usize = 6144;

const ITEM_LEN: usize = 32;
const MERGE_LEN: usize = 16;
const VALUE_LEN: usize = 32;

// Each merge has two items or more; results start within 256 bytes behind the inputs.
const _: () = assert!(
    ITEMS_MAX * ITEM_LEN + ITEMS_MAX / 2 * MERGE_LEN + 256 + (VALUES_MAX + ITEMS_MAX) * VALUE_LEN
        <= SLOT_LEN
);

/// A span to hash, checked.
#[derive(Clone, Copy)]
pub(super) struct HashAt {
    pub(super) span: Span,
    pub(super) first_chunk: u64,
    pub(super) root: bool,
}

/// The kernels for it.
#[derive(Clone, Copy)]
pub(super) struct HashKernels {
    pub(super) items: Function,
    pub(super) merge: Function,
}

/// Hashing of a list of spans.
pub(super) struct Hash<'a> {
    pub(super) kernels: HashKernels,
    pub(super) spans: &'a [HashAt],
    pub(super) values: Vec<[u8; 32]>,
}

/// The work of a block: 32 bytes on the device, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Item {
    address: u64,
    counter: u64,
    len: u32,
    out: u32,
    levels: u32,
    root: u32,
}

/// Subtrees to merge: 16 bytes on the device, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Merge {
    first: u32,
    count: u32,
    out: u32,
    root: u32,
}

/// What one launch does.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    count: usize,
    items: Vec<Item>,
    merges: Vec<Merge>,
    subtrees: usize,
}

/// A number that is known to be small.
fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// How often the chunks of so many bytes are merged until one node is left.
const fn levels(len: usize) -> u32 {
    len.div_ceil(CHUNK).next_power_of_two().trailing_zeros()
}

impl Plan {
    /// Takes spans from the start of the list while they fit.
    fn new(spans: &[HashAt]) -> Self {
        let mut plan = Self::default();
        let mut bytes = 0_u64;
        for at in spans {
            let len = at.span.len;
            let pieces = len.div_ceil(ITEM_MAX).max(1);
            bytes = bytes.saturating_add(wide(len));
            let full = bytes > SLICE_MAX
                || plan.items.len().saturating_add(pieces) > ITEMS_MAX
                || plan.count >= VALUES_MAX;
            if full && plan.count > 0 {
                break;
            }
            if pieces > 1 {
                plan.split(at, pieces);
            } else if !plan.join(at) {
                let levels = levels(len);
                plan.items.push(Item {
                    address: at.span.start,
                    counter: at.first_chunk,
                    len: small(len),
                    out: small(plan.count),
                    levels,
                    root: u32::from(at.root),
                });
            }
            plan.count = plan.count.saturating_add(1);
        }
        plan.place_subtrees();
        plan
    }

    /// A span of several items: their values are subtrees, which are merged.
    fn split(&mut self, at: &HashAt, pieces: usize) {
        let levels = levels(ITEM_MAX);
        let first = VALUES_MAX.saturating_add(self.subtrees);
        self.merges.push(Merge {
            first: small(first),
            count: small(pieces),
            out: small(self.count),
            root: u32::from(at.root),
        });
        let (mut left, mut address, mut counter) = (at.span.len, at.span.start, at.first_chunk);
        for piece in 0..pieces {
            let len = left.min(ITEM_MAX);
            let out = small(first.saturating_add(piece));
            self.items.push(Item { address, counter, len: small(len), out, levels, root: 0 });
            left = left.saturating_sub(len);
            address = address.saturating_add(wide(len));
            counter = counter.saturating_add(wide(len / CHUNK));
        }
        self.subtrees = self.subtrees.saturating_add(pieces);
    }

    /// Lets the last item do this span too, if it goes on where that ends and is as long, or the
    /// end: a block then gives several values.
    fn join(&mut self, at: &HashAt) -> bool {
        let out = small(self.count);
        let Some(last) = self.items.last_mut() else { return false };
        let chunk = small(CHUNK);
        let node = chunk.saturating_mul(1 << last.levels.min(8));
        let (len, chunks) = (small(at.span.len), last.len.checked_div(chunk).unwrap_or(0));
        let joined = last.len.saturating_add(len);
        let goes_on = last.len.is_multiple_of(node)
            && last.out.saturating_add(last.len.checked_div(node).unwrap_or(0)) == out
            && last.address.saturating_add(u64::from(last.len)) == at.span.start
            && last.counter.saturating_add(u64::from(chunks)) == at.first_chunk;
        let fits = len <= node && joined <= small(ITEM_MAX) && !at.root && last.root == 0;
        if goes_on && fits {
            last.len = joined;
        }
        goes_on && fits
    }

    /// Lets the values of subtrees stand right behind those of spans.
    fn place_subtrees(&mut self) {
        let down = small(VALUES_MAX.saturating_sub(self.count));
        for item in self.items.iter_mut().filter(|item| item.out >= small(VALUES_MAX)) {
            item.out = item.out.saturating_sub(down);
        }
        for merge in &mut self.merges {
            merge.first = merge.first.saturating_sub(down);
        }
    }
}

impl Job for Hash<'_> {
    fn len(&self) -> usize {
        self.spans.len()
    }

    fn stage(&self, first: usize, buffer: &mut [u8]) -> Slice {
        let plan = Plan::new(self.spans.get(first..).unwrap_or_default());
        let mut writer = Writer::new(buffer);
        for item in &plan.items {
            writer.put_u64(item.address);
            writer.put_u64(item.counter);
            for number in [item.len, item.out, item.levels, item.root] {
                writer.put_u32(number);
            }
        }
        for merge in &plan.merges {
            for number in [merge.first, merge.count, merge.out, merge.root] {
                writer.put_u32(number);
            }
        }
        let layout = Layout::new(writer.written(), plan.count.saturating_mul(VALUE_LEN))
            .with_more(plan.subtrees.saturating_mul(VALUE_LEN));
        let (items, merges) = (small(plan.items.len()), small(plan.merges.len()));
        Slice { first, count: plan.count, items, merges, layout }
    }

    unsafe fn launch(&self, slice: &Slice, slot: &Slot) -> Result<(), u32> {
        let at = |offset: usize| slot.start().saturating_add(wide(offset));
        let (list, values) = (at(0), at(slice.layout.results));
        let merges = list.saturating_add(u64::from(slice.items).saturating_mul(wide(ITEM_LEN)));
        // SAFETY: `blake3_items` reads as many items as it has blocks and the spans that they name,
        // which live as the caller promises; their values fit between `values` and the slot's end.
        unsafe { self.kernels.items.launch(slice.items, slot.stream(), [list, values, 1]) }?;
        if slice.merges == 0 {
            return Ok(());
        }
        let parameters = [merges, values, values, 1];
        // SAFETY: `blake3_merge` reads as many merges as it has blocks and the values that they
        // name, which the kernel before it in the stream wrote; it writes values of the slot.
        unsafe { self.kernels.merge.launch(slice.merges, slot.stream(), parameters) }
    }

    fn collect(&mut self, _slice: &Slice, results: &[u8]) {
        self.values.extend_from_slice(results.as_chunks::<VALUE_LEN>().0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: u64, len: usize, first_chunk: u64, root: bool) -> HashAt {
        HashAt { span: Span { start, len }, first_chunk, root }
    }

    fn outs(plan: &Plan) -> Vec<(u32, u32, u32)> {
        plan.items.iter().map(|item| (item.len, item.out, item.levels)).collect()
    }

    #[test]
    fn a_short_span_is_an_item_and_a_long_one_several_that_are_merged() {
        let plan = Plan::new(&[span(0, 1, 0, true)]);
        assert_eq!((outs(&plan), plan.count), (vec![(1, 0, 0)], 1));
        assert_eq!(plan.items[0].root, 1);

        let long = (512 << 10) + 5;
        let plan = Plan::new(&[span(4096, long, 0, true), span(1 << 30, 5000, 1024, false)]);
        assert_eq!(outs(&plan), [(1 << 18, 2, 8), (1 << 18, 3, 8), (5, 4, 8), (5000, 1, 3)]);
        assert_eq!(plan.items[2].counter, 512);
        assert_eq!(plan.items[2].address, 4096 + (512 << 10));
        assert_eq!(plan.merges, [Merge { first: 2, count: 3, out: 0, root: 1 }]);
        assert!(plan.items.iter().all(|item| item.root == 0));
    }

    #[test]
    fn neighbours_of_one_length_share_an_item_and_nothing_else_does() {
        let run: Vec<_> = (0..70_u64).map(|at| span(at << 12, 4096, at * 4, false)).collect();
        let plan = Plan::new(&run);
        assert_eq!(outs(&plan), [(256 << 10, 0, 2), (6 << 12, 64, 2)]);
        // The end may be shorter, and is the last of its item.
        let plan = Plan::new(&[
            span(0, 4096, 0, false),
            span(4096, 100, 4, false),
            span(4196, 100, 5, false),
        ]);
        assert_eq!(outs(&plan), [(4196, 0, 2), (100, 2, 0)]);
        for other in [
            span(8192, 4096, 4, false),
            span(4096, 4096, 5, false),
            span(4096, 8192, 4, false),
            span(4096, 4096, 0, true),
        ] {
            assert_eq!(
                Plan::new(&[span(0, 4096, 0, false), other]).items.len(),
                2,
                "{:?}",
                other.span.start
            );
        }
        // What follows a long span is not taken for a part of it.
        let plan =
            Plan::new(&[span(0, 512 << 10, 0, false), span(512 << 10, 256 << 10, 512, false)]);
        assert_eq!(plan.items.len(), 3);
        assert_eq!(plan.items[2].out, 1);
    }

    #[test]
    fn a_slice_ends_where_bytes_items_or_values_do() {
        let many: Vec<_> =
            (0..40_u64).map(|at| span(at << 24, 16 << 20, at << 14, false)).collect();
        let plan = Plan::new(&many);
        assert_eq!((plan.count, plan.items.len(), plan.merges.len()), (16, 1024, 16));
        let apart: Vec<_> = (0..9000_u64).map(|at| span(at << 20, 16, 0, true)).collect();
        assert_eq!(Plan::new(&apart).count, ITEMS_MAX);
        let beside: Vec<_> = (0..9000_u64).map(|at| span(at << 10, 1024, at, false)).collect();
        let plan = Plan::new(&beside);
        assert_eq!((plan.count, plan.items.len()), (VALUES_MAX, VALUES_MAX / 256));
    }
}
