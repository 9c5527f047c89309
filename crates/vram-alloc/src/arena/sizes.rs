//! The holes by size: bins of similar lengths, in each bin a balanced tree.
//!
//! A bin usually has a hole or two, so a search is a few instructions. The trees (AVL, in the order
//! of length, then start) keep it logarithmic when all holes are alike.

use alloc::vec::Vec;

use super::blocks::{Block, Kind, NONE};
use super::span::{End, Span};

/// 2^5 bins for each doubling of the length.
const FINE_BITS: u32 = 5;
/// Granules of lengths below 2^48 have 40 bits: 2^5 bins of one length, then those of 35 doublings.
const BIN_COUNT: usize = 36 << FINE_BITS;
const WORD_COUNT: usize = BIN_COUNT.div_ceil(64);
/// Trees know which of their holes have room for pieces at multiples of this.
const REACH_ALIGN: u64 = 2 << 20;

/// The holes of one region, by size. Its trees lie in the blocks themselves.
#[derive(Clone, Debug, Default)]
pub(super) struct Sizes {
    /// Roots of the trees, or [`NONE`]; empty until the first hole.
    roots: Vec<usize>,
    /// One bit for each bin that has a hole.
    occupied: [u64; WORD_COUNT],
    count: usize,
}

/// What is looked for.
#[derive(Clone, Copy)]
struct Wanted {
    len: u64,
    align: u64,
}

/// A block as a node of a tree.
#[derive(Clone, Copy)]
struct Node {
    span: Span,
    before: usize,
    after: usize,
    reach: u64,
    height: u8,
}

impl Node {
    fn get(blocks: &[Block], index: usize) -> Option<Self> {
        let block = blocks.get(index)?;
        match block.kind {
            Kind::Hole { before, after, reach, height } => {
                Some(Self { span: block.span, before, after, reach, height })
            }
            Kind::Vacant | Kind::Live { .. } => None,
        }
    }

    fn put(self, blocks: &mut [Block], index: usize) {
        let Self { before, after, reach, height, .. } = self;
        if let Some(block) = blocks.get_mut(index) {
            block.kind = Kind::Hole { before, after, reach, height };
        }
    }

    fn leaf(span: Span) -> Self {
        Self { span, before: NONE, after: NONE, reach: reach(span), height: 1 }
    }

    fn key(&self) -> (u64, u64) {
        (self.span.len(), self.span.start)
    }

    /// Returns false if no hole of this subtree fits. Lengths are judged by the order of the tree.
    fn may_fit(&self, wanted: Wanted) -> bool {
        wanted.align < REACH_ALIGN || self.reach >= wanted.len
    }

    fn cut(&self, index: usize, wanted: Wanted, end: End) -> Option<(usize, u64)> {
        self.span.cut(wanted.len, wanted.align, end).map(|start| (index, start))
    }
}

impl Sizes {
    pub(super) const fn count(&self) -> usize {
        self.count
    }

    /// Finds the smallest hole that holds `len` bytes at a multiple of `align`, and the start in
    /// it. Among holes of the same size, the one nearest to the wanted end wins.
    ///
    /// Costs O(log n) for alignments up to that of the holes themselves, and for 2 MiB. With
    /// another one, the search may pass over holes that are long enough but misaligned: those of
    /// `len..len + align` bytes.
    pub(super) fn best_fit(
        &self,
        blocks: &[Block],
        len: u64,
        align: u64,
        end: End,
    ) -> Option<(usize, u64)> {
        let wanted = Wanted { len, align };
        let mut bin = self.occupied_from(bin_of(len))?;
        loop {
            let root = self.root(bin);
            if let Some((index, start)) = first_fit(blocks, root, wanted) {
                if end == End::Low {
                    return Some((index, start));
                }
                let len = Node::get(blocks, index)?.span.len();
                return last_fit(blocks, root, len, wanted);
            }
            bin = self.occupied_from(bin.saturating_add(1))?;
        }
    }

    pub(super) fn largest(&self, blocks: &[Block]) -> u64 {
        let word = self.occupied.iter().rposition(|bits| *bits != 0);
        let Some(word) = word else { return 0 };
        let bits = self.occupied.get(word).copied().unwrap_or(0);
        let mut index = self.root(bin_at(word, bits.checked_ilog2().unwrap_or(0)));
        let mut largest = 0;
        while let Some(node) = Node::get(blocks, index) {
            largest = node.span.len();
            index = node.after;
        }
        largest
    }

    /// Makes a block of at least one byte a hole.
    pub(super) fn insert(&mut self, blocks: &mut [Block], index: usize) {
        let Some(block) = blocks.get(index) else { return };
        let node = Node::leaf(block.span);
        node.put(blocks, index);
        let bin = bin_of(node.span.len());
        let root = insert_below(blocks, self.root(bin), index, node.key());
        self.set_root(bin, root);
        self.count = self.count.saturating_add(1);
    }

    /// Takes a hole out. Its block keeps its span.
    pub(super) fn remove(&mut self, blocks: &mut [Block], index: usize) {
        let Some(node) = Node::get(blocks, index) else { return };
        let bin = bin_of(node.span.len());
        let root = remove_below(blocks, self.root(bin), node.key());
        self.set_root(bin, root);
        if let Some(block) = blocks.get_mut(index) {
            block.kind = Kind::Vacant;
        }
        self.count = self.count.saturating_sub(1);
    }

    fn root(&self, bin: usize) -> usize {
        self.roots.get(bin).copied().unwrap_or(NONE)
    }

    fn set_root(&mut self, bin: usize, root: usize) {
        if self.roots.is_empty() {
            self.roots.resize(BIN_COUNT, NONE);
        }
        if let Some(slot) = self.roots.get_mut(bin) {
            *slot = root;
        }
        let bit = 1 << (bin & 63);
        if let Some(word) = self.occupied.get_mut(bin >> 6) {
            *word = if root == NONE { *word & !bit } else { *word | bit };
        }
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

/// Bytes of the hole that start at a multiple of 2 MiB.
fn reach(span: Span) -> u64 {
    span.end.saturating_sub(span.start.next_multiple_of(REACH_ALIGN))
}

/// The first hole, in the tree's order, in which the piece fits, and its lowest start there.
fn first_fit(blocks: &[Block], index: usize, wanted: Wanted) -> Option<(usize, u64)> {
    let node = Node::get(blocks, index).filter(|node| node.may_fit(wanted))?;
    if node.span.len() < wanted.len {
        return first_fit(blocks, node.after, wanted);
    }
    first_fit(blocks, node.before, wanted)
        .or_else(|| node.cut(index, wanted, End::Low))
        .or_else(|| first_fit(blocks, node.after, wanted))
}

/// The last of the holes of `len` bytes in which the piece fits, and its highest start there.
fn last_fit(blocks: &[Block], index: usize, len: u64, wanted: Wanted) -> Option<(usize, u64)> {
    let node = Node::get(blocks, index).filter(|node| node.may_fit(wanted))?;
    if node.span.len() < len {
        return last_fit(blocks, node.after, len, wanted);
    }
    if node.span.len() > len {
        return last_fit(blocks, node.before, len, wanted);
    }
    last_fit(blocks, node.after, len, wanted)
        .or_else(|| node.cut(index, wanted, End::High))
        .or_else(|| last_fit(blocks, node.before, len, wanted))
}

/// Inserts a leaf into the subtree, and returns the subtree's new root.
fn insert_below(blocks: &mut [Block], index: usize, leaf: usize, key: (u64, u64)) -> usize {
    let Some(mut node) = Node::get(blocks, index) else { return leaf };
    let side = if key < node.key() { End::Low } else { End::High };
    let old = child(blocks, &mut node, side);
    *node.side(side) = insert_below(blocks, old.0, leaf, key);
    rebalance(blocks, index, node, side, old)
}

/// Removes the node of that key from the subtree, and returns the subtree's new root.
fn remove_below(blocks: &mut [Block], index: usize, key: (u64, u64)) -> usize {
    let Some(mut node) = Node::get(blocks, index) else { return index };
    if key == node.key() {
        if node.before == NONE {
            return node.after;
        }
        if node.after == NONE {
            return node.before;
        }
        let (first, rest) = remove_first(blocks, node.after);
        let Some(successor) = Node::get(blocks, first) else { return index };
        return balance(blocks, first, Node { before: node.before, after: rest, ..successor });
    }
    let side = if key < node.key() { End::Low } else { End::High };
    let old = child(blocks, &mut node, side);
    *node.side(side) = remove_below(blocks, old.0, key);
    rebalance(blocks, index, node, side, old)
}

/// Takes the first node out of a subtree that has one: returns it, and the subtree's new root.
fn remove_first(blocks: &mut [Block], index: usize) -> (usize, usize) {
    let Some(mut node) = Node::get(blocks, index) else { return (NONE, NONE) };
    if node.before == NONE {
        return (index, node.after);
    }
    let old = child(blocks, &mut node, End::Low);
    let (first, rest) = remove_first(blocks, old.0);
    node.before = rest;
    (first, rebalance(blocks, index, node, End::Low, old))
}

/// A subtree: its root, height and reach.
type Subtree = (usize, u8, u64);

fn child(blocks: &[Block], node: &mut Node, side: End) -> Subtree {
    let index = *node.side(side);
    Node::get(blocks, index).map_or((index, 0, 0), |node| (index, node.height, node.reach))
}

/// [`balance`], unless the subtree on that side is as it was: then the other one is not looked at,
/// which in a large region is seldom in the cache.
fn rebalance(blocks: &mut [Block], index: usize, mut node: Node, side: End, old: Subtree) -> usize {
    if child(blocks, &mut node, side) == old { index } else { balance(blocks, index, node) }
}

/// Stores a node whose subtrees' heights differ by at most 2, and rotates so that they differ by at
/// most 1. Returns the new root.
fn balance(blocks: &mut [Block], index: usize, node: Node) -> usize {
    let (before, after) = (height(blocks, node.before), height(blocks, node.after));
    if before > after.saturating_add(1) {
        return rotate(blocks, index, node, End::Low);
    }
    if after > before.saturating_add(1) {
        return rotate(blocks, index, node, End::High);
    }
    settle(blocks, index, node)
}

/// Puts the child on the higher side above its parent; before that, the grandchild that lies between
/// them above the child, if it is the higher one.
fn rotate(blocks: &mut [Block], index: usize, mut node: Node, higher: End) -> usize {
    let child = *node.side(higher);
    let Some(mut top) = Node::get(blocks, child) else { return settle(blocks, index, node) };
    let lower = if higher == End::Low { End::High } else { End::Low };
    let (inner, outer) = (*top.side(lower), *top.side(higher));
    let mut root = child;
    if height(blocks, inner) > height(blocks, outer)
        && let Some(mut grandchild) = Node::get(blocks, inner)
    {
        *top.side(lower) = *grandchild.side(higher);
        settle(blocks, child, top);
        *grandchild.side(higher) = child;
        (root, top) = (inner, grandchild);
    }
    *node.side(higher) = *top.side(lower);
    settle(blocks, index, node);
    *top.side(lower) = index;
    settle(blocks, root, top)
}

impl Node {
    fn side(&mut self, end: End) -> &mut usize {
        if end == End::Low { &mut self.before } else { &mut self.after }
    }
}

/// Stores a node, with its height and reach from its subtrees.
fn settle(blocks: &mut [Block], index: usize, node: Node) -> usize {
    let (before, after) = (Node::get(blocks, node.before), Node::get(blocks, node.after));
    let most =
        |of: fn(&Node) -> u64| before.as_ref().map_or(0, of).max(after.as_ref().map_or(0, of));
    let height =
        before.map_or(0, |n| n.height).max(after.map_or(0, |n| n.height)).saturating_add(1);
    let reach = reach(node.span).max(most(|node| node.reach));
    Node { reach, height, ..node }.put(blocks, index);
    index
}

fn height(blocks: &[Block], index: usize) -> u8 {
    Node::get(blocks, index).map_or(0, |node| node.height)
}

#[cfg(test)]
impl super::blocks::Blocks {
    /// Checks order, balance, heights and reaches of every tree. Returns the greatest height.
    pub(super) fn check_trees(&self) -> u8 {
        let (all, sizes) = self.parts();
        let mut seen = 0_usize;
        let mut greatest = 0;
        for (bin, root) in sizes.roots.iter().enumerate() {
            let is_occupied = sizes.occupied[bin >> 6] >> (bin & 63) & 1 == 1;
            assert_eq!(*root != NONE, is_occupied, "bin {bin}");
            let mut keys = Vec::new();
            greatest = greatest.max(check_below(all, *root, bin, &mut keys).0);
            assert!(keys.is_sorted(), "bin {bin}");
            seen = seen.saturating_add(keys.len());
        }
        assert_eq!(seen, sizes.count());
        greatest
    }
}

/// Returns height and reach of the subtree, and appends its keys in the order of the tree.
#[cfg(test)]
fn check_below(all: &[Block], at: usize, bin: usize, keys: &mut Vec<(u64, u64)>) -> (u8, u64) {
    let Some(node) = Node::get(all, at) else { return (0, 0) };
    assert_eq!(bin_of(node.span.len()), bin);
    let (before, most_before) = check_below(all, node.before, bin, keys);
    keys.push(node.key());
    let (after, most_after) = check_below(all, node.after, bin, keys);
    assert!(before.abs_diff(after) <= 1, "{before} and {after} below {at}");
    assert_eq!(node.height.checked_sub(1), Some(before.max(after)));
    assert_eq!(node.reach, reach(node.span).max(most_before).max(most_after));
    (node.height, node.reach)
}
