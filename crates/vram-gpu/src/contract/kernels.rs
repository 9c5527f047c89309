//! Checks of kernels, for devices that offer them: others are passed over, with a word in the log.

use core::time::Duration;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Instant;

use vram_alloc::DeviceOffset;

use super::{Dice, Factory, allocate, free_range, pattern, range, read};
use crate::kernels::blake3::Tree;
use crate::kernels::chacha::{Segment, nonce};
use crate::kernels::{
    CipherSpan, FingerprintKey, Form, HashSpan, KernelError, Kernels, NoKernels, Unfit,
};
use crate::{Device, DeviceMemory, GpuError};

/// How long a device may take to load its kernels.
const PATIENCE: Duration = Duration::from_secs(90);

/// Bytes in the memory of a check.
const LEN: usize = 600_000;

/// Chaining values and hashes are those of BLAKE3: spans of every kind of length, at the start, in
/// the middle and at the last byte of the memory, many in one call.
pub fn kernels_hash_as_the_host_does(factory: Factory<'_>) {
    for device in factory() {
        let Some(kernels) = kernels(&*device) else { continue };
        let (memory, bytes) = filled(&*device, 11);
        let mut spans: Vec<HashSpan> = Vec::new();
        for len in [1, 63, 64, 65, 1023, 1024, 1025, 2048, 3000, 4096, 9_000, 65_536] {
            for (start, first_chunk, root) in [(0, 0, true), (16, 0, false), (4096, 1 << 33, false)]
            {
                spans.push(HashSpan { range: range(&*memory, start, len), first_chunk, root });
            }
        }
        let long = range(&*memory, 256, 263_169);
        spans.push(HashSpan { range: long, first_chunk: 0, root: true });
        let end = range(&*memory, LEN - 1008, 1008);
        spans.push(HashSpan { range: end, first_chunk: 7, root: false });
        let expected: Vec<_> = spans.iter().map(|span| hashed(&bytes, span)).collect();
        let values = kernels.hash(&*memory, &spans).unwrap();
        for ((span, value), expected) in spans.iter().zip(values).zip(expected) {
            assert_eq!(value, expected, "{span:?}");
        }
        assert_eq!(kernels.hash(&*memory, &[]).unwrap(), Vec::<[u8; 32]>::new());
        assert!(read(&*memory, 0, LEN) == bytes, "hashing changed the bytes");
    }
}

/// Fingerprints are those that a host computes of the same bytes, under one key and under two; one
/// bit more or less changes the one of its span alone.
pub fn kernels_fingerprint_as_the_host_does(factory: Factory<'_>) {
    for device in factory() {
        let Some(kernels) = kernels(&*device) else { continue };
        let (memory, mut bytes) = filled(&*device, 12);
        let lens = [1, 15, 16, 17, 511, 512, 513, 4095, 4096, 4097, 16_385, 65_536, 262_144];
        let spans: Vec<_> = lens.iter().map(|len| range(&*memory, 32, *len)).collect();
        let spans = [spans, vec![range(&*memory, LEN - 752, 752)]].concat();
        let (key, renewed) = (key(1), key(2));
        let of = |bytes: &[u8], key: &FingerprintKey| {
            let value = |span: &vram_alloc::DeviceRange| {
                key.fingerprint_by(Form::Portable, &bytes[span.to_usize_range().unwrap()])
            };
            spans.iter().map(value).collect::<Vec<_>>()
        };
        for renewed in [None, Some(&renewed)] {
            let values = kernels.fingerprint(&*memory, &spans, &key, renewed).unwrap();
            let value: Vec<_> = values.iter().map(|value| Some(value.value)).collect();
            assert_eq!(value, of(&bytes, &key));
            let value: Vec<_> = values.iter().map(|value| value.renewed).collect();
            let none = vec![None; spans.len()];
            assert_eq!(value, renewed.map_or(none, |renewed| of(&bytes, renewed)));
        }
        // Only the last span has this byte.
        let few = [spans[3], spans[8], spans[spans.len() - 1]];
        let before = kernels.fingerprint(&*memory, &few, &key, None).unwrap();
        bytes[LEN - 1] ^= 1;
        memory.write(range(&*memory, LEN - 1, 1), &bytes[LEN - 1..]).unwrap();
        let after = kernels.fingerprint(&*memory, &few, &key, None).unwrap();
        let changed: Vec<_> = (0..few.len()).filter(|at| before[*at] != after[*at]).collect();
        assert_eq!(changed, [few.len() - 1]);
    }
}

/// Segments are sealed and opened as RFC 8439 says, in place and elsewhere; only targets are
/// written, and none of a segment whose tag is wrong.
pub fn kernels_seal_and_open_as_the_host_does(factory: Factory<'_>) {
    for device in factory() {
        let Some(kernels) = kernels(&*device) else { continue };
        let (source, bytes) = filled(&*device, 13);
        let (target, other) = filled(&*device, 14);
        let lens = [0, 1, 15, 16, 17, 63, 64, 65, 1000, 4096, 4097, 40_000, 70_001];
        let mut spans = Vec::new();
        let mut at = 48;
        for (index, len) in (0..).zip(lens) {
            let target = DeviceOffset::from_usize(at + 160);
            let (source, last) = (range(&*source, at, len), index == 12);
            spans.push(CipherSpan { source, target, index: index * 77_777, last });
            at += (len + 16).next_multiple_of(16);
        }
        let keys: Vec<[u8; 32]> =
            (0..spans.len()).map(|at| pattern(32, seed(at)).try_into().unwrap()).collect();

        // To other memory, then in place.
        let (mut expected, mut tags) = (other, Vec::new());
        for (span, key) in spans.iter().zip(&keys) {
            let (sealed, tag) = sealed(&bytes[span.source.to_usize_range().unwrap()], span, key);
            put(&mut expected, span.target, &sealed);
            tags.push(tag);
        }
        assert_eq!(kernels.seal(&*source, &*target, &spans, &keys).unwrap(), tags);
        assert!(read(&*target, 0, LEN) == expected, "exactly the targets are written");
        assert!(read(&*source, 0, LEN) == bytes);
        let there: Vec<_> = spans
            .iter()
            .map(|span| {
                let start = span.target.to_usize().unwrap();
                let len = span.source.len().to_usize().unwrap();
                CipherSpan { source: range(&*target, start, len), ..*span }
            })
            .collect();
        assert_eq!(kernels.tags(&*target, &there, &keys).unwrap(), tags);

        let mut wrong = tags.clone();
        wrong[3][15] ^= 0x80;
        wrong[9][0] ^= 1;
        let good: Vec<bool> = (0..spans.len()).map(|at| at != 3 && at != 9).collect();
        assert_eq!(kernels.open(&*target, &*target, &there, &keys, &wrong).unwrap(), good);
        for (span, good) in spans.iter().zip(&good) {
            if *good {
                put(&mut expected, span.target, &bytes[span.source.to_usize_range().unwrap()]);
            }
        }
        assert!(read(&*target, 0, LEN) == expected, "exactly what is good is opened");
        let none = kernels.open(&*target, &*target, &[], &[], &[]).unwrap();
        assert_eq!(none, Vec::<bool>::new());
    }
}

/// Spans that do not fit are refused by name, before anything is written.
pub fn kernels_refuse_what_does_not_fit_and_change_nothing(factory: Factory<'_>) {
    for device in factory() {
        let Some(kernels) = kernels(&*device) else { continue };
        let (memory, bytes) = filled(&*device, 15);
        let key = key(3);
        let good = range(&*memory, 0, 1024);
        let hash = |range, first_chunk, root| {
            let fine = HashSpan { range: good, first_chunk: 0, root: false };
            let refused = kernels.hash(&*memory, &[fine, HashSpan { range, first_chunk, root }]);
            refused.unwrap_err()
        };
        let fingerprint =
            |range| kernels.fingerprint(&*memory, &[good, range], &key, None).unwrap_err();
        let seal = |source, target, keys| {
            let fine =
                CipherSpan { source: good, target: DeviceOffset::START, index: 0, last: false };
            let at = DeviceOffset::from_usize(target);
            let spans = [fine, CipherSpan { source, target: at, index: 1, last: true }];
            let sealed = kernels.seal(&*memory, &*memory, &spans, &vec![[7; 32]; keys]);
            let opened =
                kernels.open(&*memory, &*memory, &spans, &vec![[7; 32]; keys], &[[0; 16]; 2]);
            let (refused, opened) = (sealed.unwrap_err(), opened.unwrap_err());
            assert_eq!(refused, opened);
            refused
        };
        let outside =
            [(LEN, 1), (LEN - 1024, 1025), (1 << 40, 16)].map(|(at, len)| free_range(at, len));
        let is_unaligned = |error: KernelError, at| {
            let gpu = device.info().index;
            assert_eq!(error, KernelError::Unfit { gpu, why: Unfit::Unaligned { at } });
        };
        let has_length = |error: KernelError| {
            let why = |why| matches!(why, Unfit::Length { .. });
            assert!(
                matches!(error, KernelError::Unfit { why: reason, .. } if why(reason)),
                "{error}"
            );
        };
        for outside in outside {
            for error in [hash(outside, 0, false), fingerprint(outside), seal(outside, 4096, 2)] {
                let bounds = matches!(error, KernelError::Device(GpuError::OutOfBounds { .. }));
                assert!(bounds, "{error}");
            }
        }
        is_unaligned(hash(free_range(8, 1024), 0, false), 8);
        is_unaligned(fingerprint(free_range(1, 1)), 1);
        is_unaligned(seal(free_range(2052, 8), 4096, 2), 2052);
        is_unaligned(seal(free_range(2048, 8), 4100, 2), 4100);
        has_length(hash(free_range(0, 0), 0, false));
        has_length(hash(free_range(0, (16 << 20) + 1), 0, false));
        has_length(fingerprint(free_range(0, 0)));
        has_length(fingerprint(free_range(0, (256 << 10) + 1)));
        has_length(seal(free_range(0, (16 << 20) + 1), 0, 2));
        let why = |error| match error {
            KernelError::Unfit { why, .. } => why,
            KernelError::Device(error) => panic!("{error}"),
        };
        for (len, first_chunk, root) in [(2048, 1, false), (3000, 2, false), (1024, 1, true)] {
            let error = hash(free_range(0, len), first_chunk, root);
            assert_eq!(why(error), Unfit::NoSubtree { first_chunk });
        }
        assert_eq!(why(seal(free_range(2048, 8), 4096, 1)), Unfit::Lists { spans: 2, others: 1 });
        assert_eq!(why(seal(free_range(2048, 64), 2064, 2)), Unfit::Overlap);
        assert_eq!(why(seal(free_range(2048, 64), 2000, 2)), Unfit::Overlap);
        // The first span's bytes, and its target.
        assert_eq!(why(seal(free_range(2048, 64), 1008, 2)), Unfit::Overlap);
        assert_eq!(why(seal(free_range(1008, 64), 4096, 2)), Unfit::Overlap);
        assert!(read(&*memory, 0, LEN) == bytes, "a refused call wrote something");
        assert!(device.state().is_ready());
    }
}

/// Memory of another device is refused by name, whichever place it is given in.
pub fn kernels_refuse_memory_of_other_devices(factory: Factory<'_>) {
    let devices = factory();
    for device in &devices {
        let Some(kernels) = kernels(&**device) else { continue };
        let own = allocate(&**device, 4096);
        for other in devices.iter().filter(|other| !Arc::ptr_eq(other, device)) {
            let memory = allocate(&**other, 4096);
            let all = range(&*memory, 0, 1024);
            let span =
                CipherSpan { source: all, target: DeviceOffset::START, index: 0, last: true };
            let hash = HashSpan { range: all, first_chunk: 0, root: true };
            let (spans, keys, tags) = ([span], [[1; 32]], [[0; 16]]);
            for refused in [
                kernels.hash(&*memory, &[hash]).unwrap_err(),
                kernels.fingerprint(&*memory, &[all], &key(4), None).unwrap_err(),
                kernels.tags(&*memory, &spans, &keys).unwrap_err(),
                kernels.open(&*memory, &*own, &spans, &keys, &tags).unwrap_err(),
                kernels.open(&*own, &*memory, &spans, &keys, &tags).unwrap_err(),
                kernels.seal(&*memory, &*own, &spans, &keys).unwrap_err(),
                kernels.seal(&*own, &*memory, &spans, &keys).unwrap_err(),
            ] {
                let other = matches!(refused, KernelError::Unfit { why: Unfit::OtherMemory, .. });
                assert!(other, "{refused}");
            }
        }
    }
}

/// Many threads use the kernels beside others that copy: each gets the results of its own spans, and
/// what is written meanwhile does no harm.
pub fn kernels_serve_many_threads_at_once(factory: Factory<'_>) {
    const THREADS: u64 = 6;
    for device in factory() {
        let Some(kernels) = kernels(&*device) else { continue };
        let shared = allocate(&*device, 65_536);
        shared.fill(range(&*shared, 0, 65_536), 1).unwrap();
        let (key, start) = (key(5), Barrier::new(6));
        thread::scope(|scope| {
            for number in 0..THREADS {
                let (kernels, device, key, shared, start) =
                    (&kernels, &device, &key, &shared, &start);
                scope.spawn(move || {
                    let memory = allocate(&**device, 40_000);
                    let mut dice = Dice(number);
                    start.wait();
                    for round in 0..6 {
                        let bytes = pattern(40_000, number * 100 + round);
                        memory.write(range(&*memory, 0, 40_000), &bytes).unwrap();
                        let (first, len) = (dice.below(1000) * 16, 1 + dice.below(20_000));
                        let part = &bytes[first..first + len];
                        let all = range(&*memory, first, len);
                        let span = HashSpan { range: all, first_chunk: 0, root: true };
                        assert_eq!(
                            kernels.hash(&*memory, &[span]).unwrap(),
                            [hashed(&bytes, &span)]
                        );
                        let value = kernels.fingerprint(&*memory, &[all], key, None).unwrap();
                        assert_eq!(Some(value[0].value), key.fingerprint(part));
                        // Bytes that others write at this moment.
                        let bytes = range(&**shared, 0, 65_536);
                        shared.fill(bytes, u8::try_from(round).unwrap()).unwrap();
                        kernels.fingerprint(&**shared, &[bytes], key, None).unwrap();
                    }
                });
            }
        });
        assert!(device.state().is_ready());
    }
}

/// Kernels keep no memory: what they worked on is freed as before. After a reset they refuse memory
/// of the life before, and those of the new life work.
pub fn kernels_end_with_the_life_of_their_memory(factory: Factory<'_>) {
    for device in factory() {
        let Some(old) = kernels(&*device) else { continue };
        let (memory, _) = filled(&*device, 16);
        let span = HashSpan { range: range(&*memory, 0, 2048), first_chunk: 0, root: true };
        old.hash(&*memory, &[span]).unwrap();
        memory.free().unwrap();
        let (stale, _) = filled(&*device, 17);
        if device.may_reset().is_err() {
            tracing::info!(gpu = %device.info().index, "may not be reset: half of this check is left out");
            continue;
        }
        device.reset().unwrap();
        let refused = old.hash(&*stale, &[span]).unwrap_err();
        let gone =
            |error| matches!(error, GpuError::StaleAllocation { .. } | GpuError::Lost { .. });
        assert!(matches!(refused, KernelError::Device(error) if gone(error)), "{refused}");
        let new = kernels(&*device).unwrap();
        let refused = new.hash(&*stale, &[span]).unwrap_err();
        let gone = |error| matches!(error, GpuError::StaleAllocation { .. });
        assert!(matches!(refused, KernelError::Device(error) if gone(error)), "{refused}");
        let (memory, bytes) = filled(&*device, 18);
        assert_eq!(new.hash(&*memory, &[span]).unwrap(), [hashed(&bytes, &span)]);
    }
}

/// The kernels of a device, waited for if they are being loaded. None if it offers none.
fn kernels(device: &dyn Device) -> Option<Arc<dyn Kernels>> {
    let start = Instant::now();
    loop {
        match device.kernels() {
            // The ciphers may be loaded after the others.
            Ok(kernels) if has_ciphers(device, &*kernels) => return Some(kernels),
            Ok(_) if start.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(2)),
            Ok(_) => panic!("the ciphers of {} are not there", device.info().index),
            Err(NoKernels::NotOffered) => {
                tracing::info!(gpu = %device.info().index, "offers no kernels: not checked");
                return None;
            }
            Err(NoKernels::Loading) if start.elapsed() < PATIENCE => {
                thread::sleep(Duration::from_millis(2));
            }
            Err(error) => panic!("the kernels of {} are not there: {error}", device.info().index),
        }
    }
}

fn has_ciphers(device: &dyn Device, kernels: &dyn Kernels) -> bool {
    let memory = allocate(device, 16);
    let not_loaded =
        |error| matches!(error, KernelError::Unfit { why: Unfit::NotLoaded { .. }, .. });
    !kernels.tags(&*memory, &[], &[]).is_err_and(not_loaded)
}

fn filled(device: &dyn Device, seed: u64) -> (Box<dyn DeviceMemory>, Vec<u8>) {
    let (memory, bytes) = (allocate(device, LEN), pattern(LEN, seed));
    memory.write(range(&*memory, 0, LEN), &bytes).unwrap();
    (memory, bytes)
}

fn key(seed: u64) -> FingerprintKey {
    let material = pattern(FingerprintKey::LEN, seed).into_boxed_slice();
    FingerprintKey::from_random(material.try_into().unwrap())
}

fn seed(at: usize) -> u64 {
    u64::try_from(at).unwrap()
}

fn hashed(bytes: &[u8], span: &HashSpan) -> [u8; 32] {
    let mut tree = Tree::at(span.first_chunk);
    tree.update(&bytes[span.range.to_usize_range().unwrap()]);
    tree.finish(span.root)
}

fn sealed(bytes: &[u8], span: &CipherSpan, key: &[u8; 32]) -> (Vec<u8>, [u8; 16]) {
    let segment = Segment::new(key, nonce(span.index, span.last));
    let (mut bytes, mut authenticator) = (bytes.to_vec(), segment.authenticator());
    segment.apply(0, &mut bytes);
    authenticator.update(&bytes);
    (bytes, authenticator.finish())
}

fn put(bytes: &mut [u8], at: DeviceOffset, part: &[u8]) {
    let start = at.to_usize().unwrap();
    bytes[start..start + part.len()].copy_from_slice(part);
}
