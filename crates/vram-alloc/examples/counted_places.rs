//! Runs one hot path as often as asked, for `cargo xtask counts`: the instructions of many calls less
//! those of a few are those of the path, without what comes before and after.

#![expect(clippy::arithmetic_side_effects, reason = "lengths far below 2^63")]
#![expect(clippy::print_stderr, reason = "a command-line program prints")]

use core::hint::black_box;
use std::process::ExitCode;

use vram_alloc::{Alignment, Arena, ArenaError, ByteLen, Ledger, LedgerError, Placement};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let path = args.next().unwrap_or_default();
    let times = args.next().and_then(|times| times.parse().ok()).unwrap_or(1);
    let done = match path.as_str() {
        // Without a name, as the examples are run: each of them once.
        "" => arena_pairs(times).is_ok() && ledger_reserves(times).is_ok(),
        "arena-pair" => arena_pairs(times).is_ok(),
        "ledger-reserve" => ledger_reserves(times).is_ok(),
        _ => false,
    };
    if done {
        return ExitCode::SUCCESS;
    }
    eprintln!("usage: counted arena-pair|ledger-reserve TIMES");
    ExitCode::FAILURE
}

/// Places a piece among a thousand others with holes of all lengths between them, and releases the
/// one that was placed before.
fn arena_pairs(times: u32) -> Result<(), ArenaError> {
    let mut arena = Arena::new(ByteLen::new(139 << 30))?;
    let lens =
        (0_u64..).map(|index| ByteLen::new(1 + index.wrapping_mul(0x9e37_79b9) % (32 << 20)));
    let mut lens = lens.into_iter();
    let mut placed: Vec<Placement> = Vec::new();
    for len in lens.by_ref().take(2000) {
        placed.push(arena.place(len, Alignment::GRANULE)?);
    }
    for (index, placement) in placed.into_iter().enumerate() {
        if index.is_multiple_of(2) {
            let _released = arena.release(placement);
        }
    }
    let mut last = None;
    for _ in 0..times {
        let len = lens.next().unwrap_or(ByteLen::MIB);
        let placement = black_box(arena.place(black_box(len), Alignment::GRANULE)?);
        if let Some(before) = last.replace(placement) {
            let _released = black_box(arena.release(before));
        }
    }
    Ok(())
}

fn ledger_reserves(times: u32) -> Result<(), LedgerError> {
    let ledger = Ledger::new(ByteLen::GIB)?;
    for _ in 0..times {
        drop(black_box(ledger.reserve(black_box(ByteLen::MIB))?));
    }
    Ok(())
}
