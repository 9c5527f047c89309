//! What calls cost by the number of blocks: small pieces of all lengths, with holes of all lengths
//! between them.

use core::hint::black_box;
use core::time::Duration;

use vram_alloc::{Alignment, Arena, ByteLen, DeviceOffset, DeviceRange, Placement};

use crate::peers::{Allocator, Offsets, kept};
use crate::traces::Random;
use crate::{Call, SEED, timed};

const REGION: u64 = 512 << 30;
const PAIRS: u32 = 200_000;
const ALIGN: u64 = 256;

/// Prints a row for each number of live pieces, the two smallest alone if it shall be quick.
pub(crate) fn print(quick: bool) {
    println!();
    println!(
        "by the number of live pieces, half as many holes between them; ns a call, median of 5"
    );
    println!(
        "{:>9} {:>12} {:>17} {:>9} {:>10} {:>12} {:>12} {:>12}",
        "pieces",
        "arena pair",
        "offset-allocator",
        "report",
        "place_at",
        "holes/hole",
        "live/piece",
        "clone/piece"
    );
    let counts = [1_000, 10_000, 100_000, 1_000_000];
    for count in counts.into_iter().take(if quick { 2 } else { counts.len() }) {
        let (fill, pairs) = calls(count);
        let repeat = |mut allocator: Box<dyn Allocator>| {
            allocator.repeat(&fill, ALIGN);
            nanos(allocator.repeat(&pairs, ALIGN), PAIRS)
        };
        let ours =
            median(|| repeat(kept(Arena::new(ByteLen::new(REGION)).expect("below the largest"))));
        let theirs = median(|| repeat(kept(Offsets::with_blocks(REGION, count * 4))));
        let mut arena = filled(&fill);
        let report =
            median(|| nanos(timed(|| (0..1000).for_each(|_| _ = black_box(arena.report()))), 1000));
        let holes: Vec<_> = arena.holes().collect();
        let hole_count = u32::try_from(holes.len()).unwrap_or(u32::MAX);
        let listed = median(|| nanos(timed(|| _ = black_box(arena.holes().count())), hole_count));
        let live = median(|| nanos(timed(|| _ = black_box(arena.live().count())), count));
        let cloned = median(|| nanos(timed(|| drop(black_box(arena.clone()))), count));
        let mut random = Random(SEED);
        let exact = median(|| {
            let which = |_| holes.get(random.index_below(holes.len())).copied();
            let starts: Vec<DeviceOffset> =
                (0..1000).filter_map(which).map(DeviceRange::start).collect();
            nanos(timed(|| starts.iter().for_each(|start| place_at(&mut arena, *start))), 1000)
        });
        println!(
            "{count:>9} {ours:>12.0} {theirs:>17.0} {report:>9.0} {exact:>10.0} {listed:>12.0} {live:>12.0} {cloned:>12.0}"
        );
    }
}

/// Places a granule exactly there, and releases it.
fn place_at(arena: &mut Arena, start: DeviceOffset) {
    if let Ok(placement) = arena.place_at(start, ByteLen::new(1)) {
        let released = arena.release(placement);
        debug_assert!(released.is_ok());
    }
}

/// The calls that leave `count` pieces and holes between them, and the calls of pairs thereafter.
fn calls(count: u32) -> (Vec<Call>, Vec<Call>) {
    let mut random = Random(SEED);
    let len = |random: &mut Random| {
        let power = random.below(7);
        1 + random.below(256 << power)
    };
    let whole = usize::try_from(count).unwrap_or(0) * 3 / 2;
    let mut fill: Vec<Call> = (0..whole).map(|_| Call::Place { len: len(&mut random) }).collect();
    fill.extend((0..whole).step_by(3).map(|piece| Call::Release { piece }));
    let mut live: Vec<usize> = (0..whole).filter(|piece| !piece.is_multiple_of(3)).collect();
    let mut pairs = Vec::new();
    for piece in (whole..).take(usize::try_from(PAIRS).unwrap_or(0)) {
        let which = random.index_below(live.len());
        if let Some(slot) = live.get_mut(which) {
            pairs.push(Call::Release { piece: core::mem::replace(slot, piece) });
        }
        pairs.push(Call::Place { len: len(&mut random) });
    }
    (fill, pairs)
}

fn filled(fill: &[Call]) -> Arena {
    let mut arena = Arena::new(ByteLen::new(REGION)).expect("below the largest");
    let mut held: Vec<Option<Placement>> = Vec::new();
    for call in fill {
        match *call {
            Call::Place { len } => {
                held.push(arena.place(ByteLen::new(len), Alignment::GRANULE).ok());
            }
            Call::Release { piece } => {
                if let Some(placement) = held.get_mut(piece).and_then(Option::take) {
                    let released = arena.release(placement);
                    debug_assert!(released.is_ok());
                }
            }
        }
    }
    arena
}

fn nanos(spent: Duration, count: u32) -> f64 {
    spent.as_secs_f64() * 1e9 / f64::from(count.max(1))
}

fn median(mut measure: impl FnMut() -> f64) -> f64 {
    let mut rounds: Vec<f64> = (0..5).map(|_| measure()).collect();
    rounds.sort_unstable_by(f64::total_cmp);
    rounds.get(2).copied().unwrap_or(0.0)
}
