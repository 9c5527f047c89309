//! Each kernel beside what the host computes of the same bytes.

use std::sync::Arc;

use vram_alloc::{ByteLen, DeviceRange, GpuIndex};
use vram_gpu::kernels::{CipherSpan, HashSpan, Kernels};
use vram_gpu::{CudaDevice, Device, DeviceMemory, HostDevice};

use super::{cipher_keys, cipher_span, fingerprint_key, hash_span, kernels, most, range};
use crate::machine;
use crate::measure::noise;

/// The most bytes that the host computes of in a check.
const MOST: u64 = 48 << 20;

/// The same bytes on a card and on a host device, and the kernels of both.
struct Pair {
    sides: [(Box<dyn DeviceMemory>, Arc<dyn Kernels>); 2],
    len: u64,
}

impl Pair {
    fn new(device: &CudaDevice) -> Self {
        let len = ByteLen::new(most(device).get().min(MOST));
        let bytes = noise(len);
        let host = HostDevice::builder(GpuIndex::new(0), len).kernels().build().unwrap();
        let card = (device.allocate(len).unwrap(), kernels(device));
        let sides = [card, (host.allocate(len).unwrap(), host.kernels().unwrap())];
        for (memory, _) in &sides {
            memory.write(DeviceRange::whole(len), &bytes).unwrap();
        }
        Self { sides, len: len.get() }
    }

    /// Those of the lengths that fit.
    fn fitting(&self, lens: &[u64]) -> Vec<u64> {
        lens.iter().copied().filter(|len| len + 4096 <= self.len).collect()
    }

    #[track_caller]
    fn agree<T: PartialEq + core::fmt::Debug>(
        &self,
        what: &str,
        compute: impl Fn(&dyn DeviceMemory, &dyn Kernels) -> T,
    ) -> T {
        let [card, host] =
            [0, 1].map(|side: usize| compute(&*self.sides[side].0, &*self.sides[side].1));
        assert!(card == host, "the card differs from the host: {what}");
        card
    }

    /// Compares all bytes of both memories.
    #[track_caller]
    fn bytes_agree(&self, what: &str) {
        let read = |memory: &dyn DeviceMemory| {
            let mut bytes = vec![0; self.len as usize];
            memory.read(DeviceRange::whole(memory.len()), &mut bytes).unwrap();
            bytes
        };
        assert!(self.agree(what, |memory, _| read(memory)).len() as u64 == self.len);
    }
}

#[test]
fn hashes_are_those_of_the_host() {
    for device in machine::devices() {
        let pair = Pair::new(&device);
        let lens = pair.fitting(&[
            1,
            16,
            63,
            64,
            65,
            1023,
            1024,
            1025,
            2048,
            2049,
            3000,
            65_536,
            100_000,
            262_143,
            262_144,
            262_145,
            524_288,
            1_000_003,
            4 << 20,
            16_777_215,
            16 << 20,
        ]);
        let mut spans: Vec<HashSpan> =
            lens.iter().map(|len| hash_span(16, *len, 0, true)).collect();
        for (len, first) in [(1024, 5), (4096, 1 << 33), (262_144, 256), (262_144, 1 << 40)] {
            spans.push(hash_span(4096, len, first, false));
        }
        // The end of something longer: any length.
        spans.extend(
            lens.iter().filter(|len| **len > 1).map(|len| hash_span(0, *len, 1 << 20, false)),
        );
        // Neighbours, which share blocks of threads.
        let step = 16_384;
        spans.extend(
            (0..range(0, pair.len).len().get() / step)
                .map(|at| hash_span(at * step, step, at * 16, false)),
        );
        let values = pair.agree("hashes", |memory, kernels| kernels.hash(memory, &spans).unwrap());
        assert_eq!(values.len(), spans.len());
        pair.bytes_agree("hashing changed something");
    }
}

#[test]
fn fingerprints_are_those_of_the_host() {
    for device in machine::devices() {
        let pair = Pair::new(&device);
        let lens = [
            1, 15, 16, 17, 511, 512, 513, 4095, 4096, 4097, 16_383, 16_384, 16_385, 65_536,
            200_001, 262_143, 262_144,
        ];
        let mut spans: Vec<_> = lens.iter().map(|len| range(32, *len)).collect();
        spans.extend((0..pair.len >> 18).map(|at| range(at << 18, 1 << 18)));
        let (old, new) = (fingerprint_key(1), fingerprint_key(2));
        for renewed in [None, Some(&new)] {
            pair.agree("fingerprints", |memory, kernels| {
                kernels.fingerprint(memory, &spans, &old, renewed).unwrap()
            });
        }
    }
}

#[test]
fn segments_are_sealed_and_opened_as_by_the_host_and_refused_ones_not_touched() {
    for device in machine::devices() {
        let pair = Pair::new(&device);
        let lens = pair.fitting(&[
            0,
            1,
            15,
            16,
            17,
            63,
            64,
            65,
            1000,
            4095,
            4096,
            4097,
            65_536,
            262_144,
            1_000_001,
            16 << 20,
        ]);
        // One behind the other, every second one sealed to another place.
        let half = pair.len / 2;
        let (mut spans, mut at) = (Vec::new(), 0);
        for (index, len) in (0..).zip(lens) {
            let target = if index % 2 == 0 { at } else { half + at };
            let next = at + len.next_multiple_of(16);
            if next <= half {
                spans.push(cipher_span(at, len, target, index));
                at = next;
            }
        }
        let keys = cipher_keys(spans.len());
        let tags = pair
            .agree("seals", |memory, kernels| kernels.seal(memory, memory, &spans, &keys).unwrap());
        pair.bytes_agree("sealed bytes");
        let there: Vec<CipherSpan> = spans
            .iter()
            .map(|span| CipherSpan {
                source: range(span.target.get(), span.source.len().get()),
                ..*span
            })
            .collect();
        let again =
            pair.agree("tags", |memory, kernels| kernels.tags(memory, &there, &keys).unwrap());
        assert_eq!(again, tags);

        let mut bad = tags;
        for at in (0..bad.len()).step_by(3) {
            bad[at][at % 16] ^= 1 << (at % 8);
        }
        let good = pair.agree("verdicts", |memory, kernels| {
            kernels.open(memory, memory, &there, &keys, &bad).unwrap()
        });
        assert!((0..good.len()).all(|at| good[at] == (at % 3 != 0)), "{good:?}");
        // What was refused is as it was, in both memories.
        pair.bytes_agree("opened bytes");
    }
}

#[test]
fn one_flipped_bit_is_found_in_its_span_alone() {
    for device in machine::devices() {
        let pair = Pair::new(&device);
        let (memory, kernels) = &pair.sides[0];
        let count = (pair.len >> 18).min(16);
        let spans: Vec<_> = (0..count).map(|at| range(at << 18, 1 << 18)).collect();
        let hashes: Vec<_> =
            (0..count).map(|at| hash_span(at << 18, 1 << 18, at << 8, false)).collect();
        let key = fingerprint_key(3);
        let values = || {
            let prints = kernels.fingerprint(&**memory, &spans, &key, None).unwrap();
            (kernels.hash(&**memory, &hashes).unwrap(), prints)
        };
        let before = values();
        let last = (count << 18) - 1;
        for (at, bit) in [(0, 0), (12_345_678 % last, 3), (last, 7)] {
            let place = range(at, 1);
            let mut byte = [0];
            memory.read(place, &mut byte).unwrap();
            memory.write(place, &[byte[0] ^ (1 << bit)]).unwrap();
            let after = values();
            for span in 0..count as usize {
                let own = span as u64 == at >> 18;
                assert_eq!(before.0[span] != after.0[span], own, "hash {span}, byte {at}");
                assert_eq!(before.1[span] != after.1[span], own, "fingerprint {span}, byte {at}");
            }
            memory.write(place, &byte).unwrap();
        }
        assert!(values() == before);
    }
}

/// Several callers, each with its own memory, and copies meanwhile.
#[test]
fn several_threads_get_their_own_results() {
    for device in machine::devices() {
        let kernels = kernels(&device);
        let len = ByteLen::new(most(&device).get().min(8 << 20));
        std::thread::scope(|scope| {
            for seed in 0..4_u8 {
                let (device, kernels) = (&device, &kernels);
                scope.spawn(move || {
                    let mut bytes = noise(len);
                    for byte in &mut bytes {
                        *byte ^= seed;
                    }
                    let memory = device.allocate(len).unwrap();
                    memory.write(DeviceRange::whole(len), &bytes).unwrap();
                    let spans: Vec<_> =
                        (0..len.get() >> 16).map(|at| range(at << 16, 1 << 16)).collect();
                    let key = fingerprint_key(seed);
                    for _round in 0..4 {
                        let values = kernels.fingerprint(&*memory, &spans, &key, None).unwrap();
                        for (value, part) in values.iter().zip(bytes.chunks(1 << 16)) {
                            assert_eq!(Some(value.value), key.fingerprint(part));
                        }
                    }
                });
            }
        });
    }
}
