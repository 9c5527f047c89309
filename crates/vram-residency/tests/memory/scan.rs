//! Looking for bytes in all writable memory of this process.

use core::hint::black_box;
use std::collections::BTreeSet;
use std::fs::{File, read_to_string};
use std::os::unix::fs::FileExt;

use super::MASK;

/// The longest step of a scan, in bytes.
const STEP: usize = 1 << 20;
/// Bytes of a pattern that are compared.
const WINDOW: usize = 16;

/// The names of the masked patterns that are in this process's writable memory.
pub(crate) fn found(masked: &[(String, Vec<u8>)]) -> BTreeSet<String> {
    let memory = File::open("/proc/self/mem").unwrap();
    let mut first: Vec<Vec<usize>> = vec![Vec::new(); 256];
    for (index, (_, pattern)) in masked.iter().enumerate() {
        first[usize::from(pattern[0] ^ MASK)].push(index);
    }
    let (mut found, mut buffer) = (BTreeSet::new(), vec![0; STEP]);
    for line in read_to_string("/proc/self/maps").unwrap().lines() {
        let mut words = line.split_whitespace();
        let (range, mode) = (words.next().unwrap(), words.next().unwrap());
        if !mode.starts_with("rw") || line.ends_with("[vvar]") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let parse = |digits| u64::from_str_radix(digits, 16).unwrap();
        let (mut at, end) = (parse(start), parse(end));
        while at < end {
            let len = usize::try_from(end - at).unwrap().min(STEP);
            // A guard page within the mapping cannot be read; it cannot have been written either.
            if memory.read_exact_at(&mut buffer[..len], at).is_ok() {
                for window in buffer[..len].windows(WINDOW) {
                    for index in &first[usize::from(window[0])] {
                        let (name, pattern) = &masked[*index];
                        if window.iter().zip(pattern).all(|(byte, masked)| byte ^ MASK == *masked) {
                            found.insert(name.clone());
                        }
                    }
                }
            }
            let next = at + u64::try_from(len).unwrap();
            // The windows overlap by one byte less than a pattern.
            at = if next >= end { end } else { next - u64::try_from(WINDOW).unwrap() + 1 };
        }
        // What was read must not be found in the buffer.
        black_box(&mut buffer).fill(0);
    }
    black_box(&buffer);
    found
}
