//! `fingerprint` and `fingerprint_renew` beside the definition, byte by byte.

use crate::card::{Argument, Card, Dice, Layout, address, at, buffer, pattern, read, word};

pub(crate) const PTX: &str = include_str!("../../../../crates/vram-gpu/kernels/fingerprint.ptx");

const P: u64 = (1 << 61) - 1;
const STEPS: usize = 64;
/// Bytes of the longest item.
pub(crate) const ITEM: usize = 256 << 10;

/// The two sums of an item.
pub(crate) type Value = [u64; 2];

/// A key, and its bytes as the kernels read them.
pub(crate) struct Key {
    first: Vec<u8>,
    second: Vec<u64>,
}

impl Key {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let first = pattern(STEPS * 32 * 8, dice.next());
        let second = (0..2 * 4 * 256).map(|_| (dice.next() >> 3) % P).collect();
        Self { first, second }
    }

    /// The largest values everywhere: what could overflow does.
    pub(crate) fn extreme() -> Self {
        Self { first: vec![0x80; STEPS * 32 * 8], second: vec![P - 1; 2 * 4 * 256] }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Layout(self.first.clone());
        bytes.doubles(&self.second);
        bytes.0
    }

    /// The definition. A tile of 512 bytes is a matrix of 16 rows and 32 columns; eight tiles are a
    /// step, one for each warp.
    pub(crate) fn of(&self, data: &[u8]) -> Value {
        let mut sums = vec![[[0_u32; 8]; 16]; 8];
        for (position, byte) in data.iter().enumerate() {
            let (tile, within) = (position / 512, position % 512);
            let (warp, step) = (tile % 8, tile / 8);
            let (lane, place, byte_of) = (within / 16, within % 16 / 4, within % 4);
            let row = lane / 4 + 8 * (place % 2);
            let inner = 16 * (place / 2) + 4 * (lane % 4) + byte_of;
            for (column, sum) in sums[warp][row].iter_mut().enumerate() {
                let lane = column * 4 + inner % 16 / 4;
                let key = self.first[(step * 32 + lane) * 8 + inner / 16 * 4 + inner % 4];
                let product = i32::from(*byte) * i32::from(key.cast_signed());
                *sum = sum.wrapping_add(product.cast_unsigned());
            }
        }
        [0, 1].map(|which| {
            let mut total = 0_u128;
            for thread in 0..256 {
                let (warp, lane) = (thread / 32, thread % 32);
                for place in 0..4 {
                    let value = sums[warp][lane / 4 + 8 * (place / 2)][2 * (lane % 4) + place % 2];
                    let key = self.second[(which * 4 + place) * 256 + thread];
                    total += u128::from(value) * u128::from(key);
                }
            }
            u64::try_from(total % u128::from(P)).unwrap()
        })
    }
}

/// The values of items under each key, in a launch of so many blocks.
pub(crate) fn on_card(
    card: &Card,
    items: &[Vec<u8>],
    keys: &[&Key],
    blocks: u32,
) -> Result<Vec<Vec<Value>>, u32> {
    let data: Vec<_> = items.iter().map(|item| buffer(item)).collect();
    let mut list = Layout::default();
    for (number, item) in (0..).zip(&data) {
        list.doubles(&[address(item)]).words(&[word(item.len()), number]);
    }
    let list = buffer(&list.0);
    let out = buffer(&vec![0x5A; items.len() * keys.len() * 16]);
    let keys: Vec<_> = keys.iter().map(|key| buffer(&key.bytes())).collect();
    let mut arguments = vec![at(&list), Argument::Word(word(items.len()))];
    arguments.extend(keys.iter().map(at));
    arguments.push(at(&out));
    let kernel = if keys.len() == 1 { "fingerprint" } else { "fingerprint_renew" };
    let code = card.launch(kernel, blocks, &arguments);
    if code != 0 {
        core::mem::forget((data, list, out, keys));
        return Err(code);
    }
    let numbers: Vec<u64> =
        read(&out).as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    Ok(numbers.as_chunks().0.chunks(keys.len()).map(<[Value]>::to_vec).collect())
}

/// Compares the values of items under one key, and under two, with the definition.
pub(crate) fn check(card: &Card, items: &[Vec<u8>], keys: [&Key; 2], blocks: u32) {
    let values = on_card(card, items, &keys[..1], blocks).unwrap();
    let both = on_card(card, items, &keys, blocks).unwrap();
    for ((item, values), both) in items.iter().zip(values).zip(both) {
        let expected = keys.map(|key| key.of(item));
        assert_eq!(values, expected[..1], "{} bytes, {blocks} blocks", item.len());
        assert_eq!(both, expected, "{} bytes, {blocks} blocks", item.len());
    }
}
