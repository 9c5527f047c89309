//! Whether to read bytes from front to back before BLAKE3 reads them: measured once a process.
//!
//! BLAKE3 reads sixteen distant lanes at once. Some processors' prefetchers follow that; others only
//! recognise a run from front to back, and hash up to a fifth faster if one plain pass brings the
//! bytes into the cache first. On the former that pass costs up to a quarter. Neither the name of
//! the processor nor its features tell which it is, so it is measured.

use core::hint::black_box;
use core::num::NonZeroUsize;
use core::time::Duration;
use std::env;
use std::sync::OnceLock;
use std::time::Instant;

use crate::wipe::copying::read;

/// Fixes the choice: `off`, or the number of bytes to read ahead at a time. Any other value, and
/// `auto`, leave it to the measurement.
const VARIABLE: &str = "VRAM_SEAL_READ_AHEAD";

/// Shorter content is hashed as it comes until a longer one was seen: the measurement would take
/// longer than it saves.
const WORTH_MEASURING: u64 = 16 << 20;

/// Lengths that fit into a core's second-level cache with a margin.
const CANDIDATES: [usize; 2] = [64 << 10, 256 << 10];

/// Bytes hashed at once by the measurement.
const SAMPLE: usize = 512 << 10;
/// Four of each choice. All of them are written before the first is hashed, and are more than a
/// second-level cache holds, so that none is found there.
const SAMPLES: usize = 12;

/// How many bytes to read ahead at a time; zero for none.
static CHOICE: OnceLock<usize> = OnceLock::new();

/// How many bytes this process reads ahead at a time before it hashes bytes that come from memory;
/// `None` if it hashes them as they come.
///
/// The first call, and the first seal or verification of content of at least 16 MiB, measures what
/// is faster on this machine, which takes a few milliseconds. The variable `VRAM_SEAL_READ_AHEAD`
/// fixes it: `off`, or a number of bytes such as `262144`. The choice has no effect on any output.
#[must_use]
pub fn read_ahead_len() -> Option<NonZeroUsize> {
    NonZeroUsize::new(*CHOICE.get_or_init(choose))
}

/// As [`read_ahead_len`], for content of this length.
pub(super) fn for_content(len: u64) -> Option<NonZeroUsize> {
    if len >= WORTH_MEASURING {
        return read_ahead_len();
    }
    CHOICE.get().copied().and_then(NonZeroUsize::new)
}

/// Passes `bytes` to the hasher, having read each block of `ahead` bytes before.
pub(super) fn update(hasher: &mut blake3::Hasher, bytes: &[u8], ahead: Option<NonZeroUsize>) {
    let Some(len) = ahead else {
        hasher.update(bytes);
        return;
    };
    for block in bytes.chunks(len.get()) {
        read(block);
        hasher.update(block);
    }
}

/// The hash of short bytes, without the hasher that [`update`] fills: it takes 2 KiB, which are cleared,
/// moved and wiped for each. `None` for longer bytes.
pub(super) fn hash_short(bytes: &[u8], ahead: Option<NonZeroUsize>) -> Option<blake3::Hash> {
    let [near, _] = CANDIDATES;
    if bytes.len() > near {
        return None;
    }
    if ahead.is_some() {
        read(bytes);
    }
    Some(blake3::hash(bytes))
}

fn choose() -> usize {
    fixed(env::var(VARIABLE).ok().as_deref()).unwrap_or_else(measure)
}

fn fixed(value: Option<&str>) -> Option<usize> {
    match value? {
        "off" => Some(0),
        bytes => bytes.parse().ok().filter(|bytes| *bytes >= 1024),
    }
}

/// The choice whose least time is least. Reading ahead has to gain a twentieth: it costs the cache
/// of the cores beside this one.
fn measure() -> usize {
    let mut bytes = Vec::new();
    if bytes.try_reserve_exact(SAMPLE.saturating_mul(SAMPLES)).is_err() {
        return 0;
    }
    bytes.resize(SAMPLE.saturating_mul(SAMPLES), 1_u8);
    let [near, far] = CANDIDATES;
    let mut least = [0, near, far].map(|choice| (Duration::MAX, choice));
    let mut samples = bytes.chunks(SAMPLE);
    while samples.len() > 0 {
        for ((best, choice), sample) in least.iter_mut().zip(samples.by_ref()) {
            let mut hasher = blake3::Hasher::new();
            let start = Instant::now();
            update(&mut hasher, sample, NonZeroUsize::new(*choice));
            *best = start.elapsed().min(*best);
            black_box(hasher.finalize());
        }
    }
    let [(plain, _), ahead @ ..] = least;
    let gains = |(time, _): &(Duration, usize)| time.saturating_mul(20) < plain.saturating_mul(19);
    ahead.into_iter().filter(gains).min().map_or(0, |(_, choice)| choice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_hashes_alike() {
        let bytes: Vec<u8> = (0_u32..100_003).flat_map(u32::to_le_bytes).collect();
        for len in [0, 1, 63, 1024, 65_537, bytes.len()] {
            let bytes = bytes.get(..len).unwrap();
            for choice in [0, 1024, 4096 + 1, CANDIDATES[0], CANDIDATES[1], 1 << 30] {
                let mut hasher = blake3::Hasher::new();
                update(&mut hasher, bytes, NonZeroUsize::new(choice));
                assert_eq!(hasher.finalize(), blake3::hash(bytes), "{len} bytes, {choice} ahead");
                let short = hash_short(bytes, NonZeroUsize::new(choice));
                let expected = (len <= CANDIDATES[0]).then(|| blake3::hash(bytes));
                assert_eq!(short, expected, "{len} bytes, {choice} ahead");
            }
        }
    }

    #[test]
    fn the_variable_fixes_the_choice_or_leaves_it() {
        assert_eq!(fixed(Some("off")), Some(0));
        assert_eq!(fixed(Some("262144")), Some(262_144));
        for unclear in
            [None, Some("auto"), Some(""), Some("0"), Some("1023"), Some("-1"), Some("64k")]
        {
            assert_eq!(fixed(unclear), None, "{unclear:?}");
        }
    }

    #[test]
    fn the_measurement_answers_with_one_of_its_choices() {
        let choice = measure();
        assert!(choice == 0 || CANDIDATES.contains(&choice), "{choice}");
    }
}
