//! `blake3_items` and `blake3_merge` beside the crate blake3.

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use crate::card::{Argument, Card, Dice, Layout, address, at, buffer, pattern, read, word};

pub(crate) const PTX: &str = include_str!("../../../../crates/vram-gpu/kernels/blake3.ptx");

const CHUNK: usize = 1024;
/// Bytes of the longest item.
pub(crate) const ITEM: usize = 256 * CHUNK;

/// A chaining value, or the hash of the whole.
type Value = [u8; 32];

/// The values of the segments of a shard, as a host has them computed: `None` and the code if the
/// driver failed.
pub(crate) fn on_card(card: &Card, data: &[u8], segment: usize) -> Result<Vec<Value>, u32> {
    let shard = buffer(data);
    let segments = data.len().div_ceil(segment);
    let is_root = u32::from(segments == 1);
    let levels = (segment / CHUNK).ilog2().min(8);
    let many_items = segment > ITEM;
    let (mut items, mut values, mut firsts) = (Layout::default(), 0, Vec::new());
    for (number, bytes) in data.chunks(ITEM).enumerate() {
        let start = u64::try_from(number * ITEM).unwrap();
        if (number * ITEM).is_multiple_of(segment) {
            firsts.push(values);
        }
        // The item's last value is the root only if no merge follows.
        let root = if many_items && data.len() > ITEM { 0 } else { is_root };
        items.doubles(&[address(&shard) + start, start / 1024]);
        items.words(&[word(bytes.len()), values, levels, root]);
        values += word(bytes.len().div_ceil(CHUNK).div_ceil(1 << levels));
    }
    let count = word(data.len().div_ceil(ITEM));
    let items = buffer(&items.0);
    let one = Argument::Word(1);
    let subtrees = buffer(&vec![0x5A; usize::try_from(values).unwrap() * 32]);
    let code = card.launch("blake3_items", count, &[at(&items), at(&subtrees), one]);
    if code != 0 {
        core::mem::forget((shard, items, subtrees));
        return Err(code);
    }
    let out = if many_items {
        let mut merges = Layout::default();
        for (number, first) in (0..).zip(&firsts) {
            let end = firsts.get(usize::try_from(number).unwrap() + 1).copied().unwrap_or(values);
            merges.words(&[*first, end - first, number, is_root]);
        }
        let merges = buffer(&merges.0);
        let out = buffer(&vec![0x5A; segments * 32]);
        let count = word(segments);
        let code = card.launch("blake3_merge", count, &[at(&merges), at(&subtrees), at(&out), one]);
        if code != 0 {
            core::mem::forget((shard, items, subtrees, merges, out));
            return Err(code);
        }
        read(&out)
    } else {
        read(&subtrees)
    };
    assert_eq!(out.len(), segments * 32);
    Ok(out.as_chunks().0.to_vec())
}

/// The same by the crate.
pub(crate) fn expected(data: &[u8], segment: usize) -> Vec<Value> {
    if data.len() <= segment {
        return vec![*blake3::hash(data).as_bytes()];
    }
    data.chunks(segment)
        .enumerate()
        .map(|(number, bytes)| {
            let mut hasher = blake3::Hasher::new();
            hasher.set_input_offset(u64::try_from(number * segment).unwrap());
            hasher.update(bytes).finalize_non_root()
        })
        .collect()
}

/// The hash of the whole, of the values of its segments.
fn whole(values: &[Value]) -> Value {
    fn subtree(values: &[Value]) -> Value {
        let [value] = values else {
            let (left, right) = values.split_at(values.len().next_power_of_two() / 2);
            return merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash);
        };
        *value
    }
    let [value] = values else {
        let (left, right) = values.split_at(values.len().next_power_of_two() / 2);
        return *merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash).as_bytes();
    };
    *value
}

/// Compares the values of random bytes with the crate's, the merged hash too, and now and then what a
/// flipped bit changes.
pub(crate) fn check(card: &Card, len: usize, segment: usize, dice: &mut Dice) {
    let mut data = pattern(len, dice.next());
    let values = on_card(card, &data, segment).unwrap();
    assert_eq!(values, expected(&data, segment), "{len} bytes in segments of {segment}");
    assert_eq!(whole(&values), *blake3::hash(&data).as_bytes(), "{len} bytes");
    if dice.below(4) == 0 {
        let bit = dice.below(len * 8);
        data[bit / 8] ^= 1 << (bit % 8);
        let flipped = on_card(card, &data, segment).unwrap();
        let differ: Vec<usize> =
            (0..values.len()).filter(|number| flipped[*number] != values[*number]).collect();
        assert_eq!(differ, [bit / 8 / segment], "bit {bit} of {len} bytes, segments of {segment}");
    }
}
