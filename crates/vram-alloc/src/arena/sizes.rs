//! The holes by size: bins of similar lengths, each in the order of length, then start.
//!
//! A bin usually has a few holes: a short sorted list, which a search reads in a line or two of the
//! cache. A bin of many holes, as models of equal small tensors leave it, becomes a tree.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::ops::Bound;

use super::span::{End, Span};

/// 2^5 bins for each doubling of the length.
const FINE_BITS: u32 = 5;
/// Granules of lengths below 2^48 have 40 bits: 2^5 bins of one length, then those of 35 doublings.
const BIN_COUNT: usize = 36 << FINE_BITS;
const WORD_COUNT: usize = BIN_COUNT.div_ceil(64);
/// A longer list becomes a tree, and a smaller tree a list: far enough apart that no bin changes
/// to and fro.
const LIST_MAX: usize = 64;
const TREE_MIN: usize = 16;

/// The holes of one region, by size.
#[derive(Clone, Debug, Default)]
pub(super) struct Sizes {
    /// Empty until the first hole.
    bins: Vec<Bin>,
    /// One bit for each bin that has a hole.
    occupied: [u64; WORD_COUNT],
    count: usize,
}

/// A hole. Holes are in the order of length, then start, in which they are preferred from the low
/// end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hole {
    len: u64,
    start: u64,
    /// The hole's block.
    block: usize,
}

#[derive(Clone, Debug)]
enum Bin {
    /// In rising order.
    List(Vec<Hole>),
    Tree(BTreeSet<Hole>),
}

impl Hole {
    pub(super) fn new(span: Span, block: usize) -> Self {
        Self { len: span.len(), start: span.start, block }
    }

    /// One number, whose comparison has no branch.
    fn key(&self) -> u128 {
        u128::from(self.len) << 64 | u128::from(self.start)
    }

    /// Lower than every other hole of at least `len` bytes, and higher than every shorter one.
    const fn lowest(len: u64) -> Self {
        Self { len, start: 0, block: 0 }
    }

    /// The block and the start in it, if it has `len` bytes at a multiple of `align`.
    fn cut(&self, len: u64, align: u64, end: End) -> Option<(usize, u64)> {
        let span = Span { start: self.start, end: self.start.saturating_add(self.len) };
        span.cut(len, align, end).map(|start| (self.block, start))
    }
}

impl Ord for Hole {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Hole {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Hole {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Hole {}

impl Sizes {
    pub(super) const fn count(&self) -> usize {
        self.count
    }

    /// Finds the smallest hole that holds `len` bytes at a multiple of `align`. Returns its block
    /// and the start in it. Among holes of the same size, the one nearest to the wanted end wins.
    ///
    /// Costs O(log n) for alignments up to that of the holes themselves. With a larger one, the
    /// search may pass over holes that are long enough but misaligned: those of `len..len + align`
    /// bytes.
    pub(super) fn best_fit(&self, len: u64, align: u64, end: End) -> Option<(usize, u64)> {
        let mut number = self.occupied_from(bin_of(len))?;
        loop {
            let found = match self.bins.get(number)? {
                Bin::List(list) => fit_in_list(list, len, align, end),
                Bin::Tree(tree) => fit_in_tree(tree, len, align, end),
            };
            if found.is_some() {
                return found;
            }
            number = self.occupied_from(number.saturating_add(1))?;
        }
    }

    /// Bytes in the largest hole.
    pub(super) fn largest(&self) -> u64 {
        let word = self.occupied.iter().rposition(|bits| *bits != 0);
        let Some(word) = word else { return 0 };
        let bits = self.occupied.get(word).copied().unwrap_or(0);
        let longest = match self.bins.get(bin_at(word, bits.checked_ilog2().unwrap_or(0))) {
            Some(Bin::List(holes)) => holes.last(),
            Some(Bin::Tree(holes)) => holes.last(),
            None => None,
        };
        longest.map_or(0, |hole| hole.len)
    }

    /// Adds a hole of at least one byte.
    pub(super) fn insert(&mut self, hole: Hole) {
        if self.bins.is_empty() {
            self.bins.resize(BIN_COUNT, Bin::List(Vec::new()));
        }
        let number = bin_of(hole.len);
        let Some(bin) = self.bins.get_mut(number) else { return };
        match bin {
            Bin::List(list) if list.len() < LIST_MAX => {
                let key = hole.key();
                list.insert(list.partition_point(|other| other.key() < key), hole);
            }
            Bin::List(list) => {
                let holes = list.drain(..).chain([hole]);
                *bin = Bin::Tree(holes.collect());
            }
            Bin::Tree(tree) => {
                tree.insert(hole);
            }
        }
        if let Some(word) = self.occupied.get_mut(number >> 6) {
            *word |= 1 << (number & 63);
        }
        self.count = self.count.saturating_add(1);
    }

    pub(super) fn remove(&mut self, hole: Hole) {
        let number = bin_of(hole.len);
        let Some(bin) = self.bins.get_mut(number) else { return };
        let left = match bin {
            Bin::List(list) => {
                if let Ok(at) = list.binary_search(&hole) {
                    list.remove(at);
                }
                list.len()
            }
            Bin::Tree(tree) => {
                tree.remove(&hole);
                let left = tree.len();
                if left < TREE_MIN {
                    *bin = Bin::List(tree.iter().copied().collect());
                }
                left
            }
        };
        if left == 0
            && let Some(word) = self.occupied.get_mut(number >> 6)
        {
            *word &= !(1 << (number & 63));
        }
        self.count = self.count.saturating_sub(1);
    }

    /// The first bin from this one on that has a hole.
    fn occupied_from(&self, bin: usize) -> Option<usize> {
        let mut word = bin >> 6;
        let mut bits = self.occupied.get(word)? & (u64::MAX << (bin & 63));
        while bits == 0 {
            word = word.saturating_add(1);
            bits = *self.occupied.get(word)?;
        }
        Some(bin_at(word, bits.trailing_zeros()))
    }
}

fn fit_in_list(list: &[Hole], len: u64, align: u64, end: End) -> Option<(usize, u64)> {
    let mut longer = list.get(list.partition_point(|hole| hole.len < len)..)?.iter();
    if end == End::Low {
        return longer.find_map(|hole| hole.cut(len, align, End::Low));
    }
    let first = longer.as_slice();
    let at = longer.position(|hole| hole.cut(len, align, End::High).is_some())?;
    let same = first.get(at)?.len;
    let alike = first.get(at..)?.iter().take_while(|other| other.len == same);
    alike.filter_map(|hole| hole.cut(len, align, End::High)).last()
}

fn fit_in_tree(tree: &BTreeSet<Hole>, len: u64, align: u64, end: End) -> Option<(usize, u64)> {
    let mut longer = tree.range(Hole::lowest(len)..);
    if end == End::Low {
        return longer.find_map(|hole| hole.cut(len, align, End::Low));
    }
    let hole = longer.find(|hole| hole.cut(len, align, End::High).is_some())?;
    let next = Bound::Excluded(Hole::lowest(hole.len.saturating_add(1)));
    let alike = tree.range((Bound::Included(*hole), next));
    alike.rev().find_map(|hole| hole.cut(len, align, End::High))
}

/// The bin of holes of `len` bytes; a longer hole never has a lower bin.
fn bin_of(len: u64) -> usize {
    let granules = len >> 8;
    let coarse = granules.checked_ilog2().unwrap_or(0).saturating_sub(FINE_BITS);
    // Up to 63 granules a bin for each number of them; above, one for those with the same six
    // leading bits.
    let bin = u64::from(coarse << FINE_BITS).saturating_add(granules >> coarse);
    usize::try_from(bin).unwrap_or(usize::MAX)
}

fn bin_at(word: usize, bit: u32) -> usize {
    (word << 6).saturating_add(usize::try_from(bit).unwrap_or(0))
}

#[cfg(test)]
impl Sizes {
    /// Checks that every bin is in order and knows whether it is empty. Returns how many are trees.
    pub(super) fn check(&self) -> usize {
        let (mut seen, mut trees) = (0_usize, 0_usize);
        for (number, bin) in self.bins.iter().enumerate() {
            let holes: Vec<Hole> = match bin {
                Bin::List(list) => list.clone(),
                Bin::Tree(tree) => tree.iter().copied().collect(),
            };
            trees = trees.saturating_add(usize::from(matches!(bin, Bin::Tree(_))));
            let is_occupied = self.occupied[number >> 6] >> (number & 63) & 1 == 1;
            assert_eq!(!holes.is_empty(), is_occupied, "bin {number}");
            assert!(holes.is_sorted(), "bin {number}");
            assert!(holes.iter().all(|hole| bin_of(hole.len) == number), "bin {number}");
            seen = seen.saturating_add(holes.len());
        }
        assert_eq!(seen, self.count);
        trees
    }
}
