//! Property: the arena picks exactly the place that the policy names (P2, P3), and the same again.
//!
//! Method: quickcheck against a bitmap with one bit per granule, in which every candidate start of
//! every hole is tried. Among the holes that fit, the smallest must win, at the end that the policy
//! names.

#![expect(clippy::arithmetic_side_effects, reason = "figures are far below 2^63")]
#![expect(clippy::indexing_slicing, reason = "an index past the end is the failure of the test")]
#![expect(clippy::unwrap_used, reason = "a panic is the failure of the test")]

#[macro_use]
extern crate vram_testkit;

use core::ops::Range;

use quickcheck::{Arbitrary, Gen, QuickCheck};
use vram_alloc::{Alignment, Arena, ArenaPolicy, ByteLen, Placement};

const GRANULE: u64 = 256;

struct Bitmap {
    capacity: u64,
    taken: Vec<bool>,
}

impl Bitmap {
    fn new(capacity: u64) -> Self {
        let granules = usize::try_from(capacity.div_ceil(GRANULE)).unwrap();
        Self { capacity, taken: vec![false; granules] }
    }

    fn bytes(&self, granules: &Range<usize>) -> (u64, u64) {
        let at = |index: usize| (ByteLen::from_usize(index).get() * GRANULE).min(self.capacity);
        (at(granules.start), at(granules.end))
    }

    fn holes(&self) -> Vec<Range<usize>> {
        let mut holes: Vec<Range<usize>> = Vec::new();
        for (index, _) in self.taken.iter().enumerate().filter(|(_, taken)| !**taken) {
            match holes.last_mut() {
                Some(hole) if hole.end == index => hole.end += 1,
                _ => holes.push(index..index + 1),
            }
        }
        holes
    }

    /// Where the policy puts `len` bytes, by trying every granule of every hole.
    fn choose(&self, len: u64, align: u64, small: bool) -> Option<u64> {
        let mut best: Option<(u64, u64)> = None;
        let mut holes = self.holes();
        if small {
            // Ties go to the highest address; a strictly smaller hole still wins below.
            holes.reverse();
        }
        for hole in holes {
            let (start, end) = self.bytes(&hole);
            let mut candidates = hole
                .map(|index| ByteLen::from_usize(index).get() * GRANULE)
                .filter(|at| at.is_multiple_of(align) && at + len <= end);
            let position = if small { candidates.next_back() } else { candidates.next() };
            if let Some(position) = position
                && best.is_none_or(|(best_len, _)| end - start < best_len)
            {
                best = Some((end - start, position));
            }
        }
        best.map(|(_, position)| position)
    }

    fn mark(&mut self, start: u64, len: u64, taken: bool) {
        let first = usize::try_from(start / GRANULE).unwrap();
        let count = usize::try_from(len.div_ceil(GRANULE)).unwrap();
        for bit in &mut self.taken[first..first + count] {
            assert_ne!(*bit, taken, "granule {} twice", start / GRANULE);
            *bit = taken;
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Call {
    Place(u16, u8),
    Release(u8),
}

impl Arbitrary for Call {
    fn arbitrary(g: &mut Gen) -> Self {
        match u8::arbitrary(g) % 5 {
            0 => Self::Place(u16::arbitrary(g) % 40_000, u8::arbitrary(g) % 14),
            1 | 2 => Self::Place(u16::arbitrary(g) % 2000, u8::arbitrary(g) % 10),
            _ => Self::Release(u8::arbitrary(g)),
        }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        match *self {
            Self::Place(len, power) => {
                Box::new((len, power).shrink().map(|(len, power)| Self::Place(len, power)))
            }
            Self::Release(which) => Box::new(which.shrink().map(Self::Release)),
        }
    }
}

fn agrees(capacity: u32, small_max: u16, calls: Vec<Call>) -> bool {
    let capacity = u64::from(capacity % 70_000);
    let policy = ArenaPolicy { small_max: ByteLen::new(u64::from(small_max % 4000)) };
    let mut arena = Arena::with_policy(ByteLen::new(capacity), policy).unwrap();
    let mut bitmap = Bitmap::new(capacity);
    let mut live: Vec<Placement> = Vec::new();
    for call in calls {
        match call {
            Call::Place(0, _) => {}
            Call::Place(len, power) => {
                let len = ByteLen::new(u64::from(len));
                let align = Alignment::new(1 << power).unwrap();
                let small = len <= policy.small_max;
                let expected = bitmap.choose(len.get(), align.get().max(GRANULE), small);
                let placed = arena.place(len, align).ok();
                assert_eq!(placed.as_ref().map(|p| p.start().get()), expected);
                if let Some(placement) = placed {
                    bitmap.mark(placement.start().get(), placement.footprint().get(), true);
                    live.push(placement);
                }
            }
            Call::Release(which) if !live.is_empty() => {
                let placement = live.swap_remove(usize::from(which) % live.len());
                bitmap.mark(placement.start().get(), placement.footprint().get(), false);
                arena.release(placement).unwrap();
            }
            Call::Release(_) => {}
        }
        let holes: Vec<_> = bitmap.holes().iter().map(|hole| bitmap.bytes(hole)).collect();
        let ours: Vec<_> = arena.holes().map(|h| (h.start().get(), h.end().get())).collect();
        assert_eq!(ours, holes);
    }
    true
}

#[test]
fn the_arena_picks_the_place_that_the_policy_names() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let property: fn(u32, u16, Vec<Call>) -> bool = agrees;
    QuickCheck::new().tests(cases.unwrap_or(256)).quickcheck(property);
}
