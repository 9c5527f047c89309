//! How a segment is copied to where it is used next: whole, or in short pieces. Measured once a process.
//!
//! The C library copies long runs by `rep movsb`. An AMD EPYC of Zen 3 leaves what is copied so to the
//! memory, where the cipher then looks for it in vain: in pieces of 2 KiB a segment takes half the time. One
//! of Zen 4 keeps it in the cache, and reads a run twice as fast as pieces: 13 and 6.6 GB/s.

use core::hint::black_box;
use core::time::Duration;
use std::env;
use std::sync::OnceLock;
use std::time::Instant;

use vram_alloc::host;
use zeroize::Zeroize as _;

use super::Scratch;

/// Fixes the choice: `pieces` or `whole`. Any other value, and `auto`, leave it to the measurement.
const VARIABLE: &str = "VRAM_SEAL_COPY";

/// Content from which it is measured: shorter content may lie in the last cache, where both are alike.
/// Until then segments are copied in pieces.
const WORTH_MEASURING: usize = 64 << 20;

/// Bytes that are copied at once by the measurement, and how often, in turns.
const SAMPLE: usize = 256 << 10;
const SAMPLES: usize = 16;

/// Whether the variable says that segments are copied whole; `None` if it says nothing.
static FIXED: OnceLock<Option<bool>> = OnceLock::new();
/// The same, as it was measured.
static MEASURED: OnceLock<bool> = OnceLock::new();

/// Measures, if that was not done and `content`, which is about to be copied, is long enough: takes about a
/// millisecond.
pub(crate) fn learn(content: &[u8]) {
    if content.len() >= WORTH_MEASURING && fixed().is_none() {
        MEASURED.get_or_init(|| measure(content));
    }
}

/// Copies as many bytes as both have, from the start, to where they are used next, and returns how many.
pub(crate) fn copy(from: &[u8], to: &mut [u8]) -> usize {
    copy_as(fixed().or_else(|| MEASURED.get().copied()).unwrap_or(false), from, to)
}

fn copy_as(whole: bool, from: &[u8], to: &mut [u8]) -> usize {
    if whole { host::copy(from, to) } else { host::copy_to_use(from, to) }
}

fn fixed() -> Option<bool> {
    *FIXED.get_or_init(|| parse(env::var(VARIABLE).ok().as_deref()))
}

fn parse(value: Option<&str>) -> Option<bool> {
    match value? {
        "whole" => Some(true),
        "pieces" => Some(false),
        _ => None,
    }
}

/// Whether copies of whole segments gain a tenth, by the least times over places all over the content.
fn measure(content: &[u8]) -> bool {
    let Some(mut scratch) = Scratch::zeroed(SAMPLE) else { return false };
    let step = content.len().checked_div(SAMPLES).unwrap_or(0).max(1);
    let (mut pieces, mut whole) = (Duration::MAX, Duration::MAX);
    let mut samples = content.chunks(step).filter_map(|part| part.get(..SAMPLE));
    while let (Some(one), Some(other)) = (samples.next(), samples.next()) {
        for (choice, from, least) in [(false, one, &mut pieces), (true, other, &mut whole)] {
            let start = Instant::now();
            copy_as(choice, from, &mut scratch);
            read(black_box(&scratch));
            *least = start.elapsed().min(*least);
        }
    }
    whole.saturating_mul(10) < pieces.saturating_mul(9)
}

/// Reads bytes from front to back.
pub(crate) fn read(bytes: &[u8]) {
    let (blocks, _) = bytes.as_chunks::<64>();
    let mut sum = [0_u8; 64];
    for block in blocks {
        for (sum, byte) in sum.iter_mut().zip(block) {
            *sum ^= *byte;
        }
    }
    black_box(&mut sum).zeroize();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_choices_copy_alike() {
        let from: Vec<u8> = (0_u32..30_000).flat_map(u32::to_le_bytes).collect();
        for len in [0, 1, 2048, 2049, 100_000, from.len()] {
            for (shift, whole) in [(0, false), (0, true), (5, false), (5, true)] {
                let mut to = vec![0xA5; 200_000];
                assert_eq!(copy_as(whole, &from[..len], &mut to[shift..]), len);
                assert_eq!(to[shift..shift + len], from[..len], "{len}, {shift}, {whole}");
                assert!(to[shift + len..].iter().all(|byte| *byte == 0xA5));
                assert_eq!(copy_as(whole, &from, &mut to[..7]), 7);
            }
        }
        assert_eq!(copy(&from, &mut [0; 9]), 9);
    }

    #[test]
    fn the_variable_fixes_the_choice_or_leaves_it() {
        assert_eq!((parse(Some("whole")), parse(Some("pieces"))), (Some(true), Some(false)));
        for unclear in [None, Some("auto"), Some(""), Some("Whole"), Some("1")] {
            assert_eq!(parse(unclear), None, "{unclear:?}");
        }
    }

    #[test]
    fn what_is_too_short_to_measure_is_copied_in_pieces() {
        assert!(!measure(&[]) && !measure(&vec![1; SAMPLE - 1]));
        learn(&[1; 100]);
        // Either answer is right on some machine.
        let _either = measure(&vec![1; 8 << 20]);
    }
}
