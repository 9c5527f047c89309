//! Results: those of the host, at sizes and edges that take each path of the kernels apart.

use std::sync::Arc;

use vram_alloc::{ByteLen, DeviceRange};
use vram_gpu::kernels::{HashSpan, KernelError, Kernels, Site, Unfit};
use vram_gpu::{Device, DeviceMemory, FaultDevice, GpuError, fault::FaultPlan};

use crate::{Bench, cipher_span, hash_span, host, key, noise, range, whole};

fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap()
}

/// The same bytes on the simulated card and on a host device, with the kernels of both.
struct Pair {
    bench: Bench,
    card: (Box<dyn DeviceMemory>, Arc<dyn Kernels>),
    host: (Box<dyn DeviceMemory>, Arc<dyn Kernels>),
}

impl Pair {
    fn new(bytes: &[u8]) -> Self {
        let bench = Bench::new();
        let card = (bench.holding(bytes), bench.kernels());
        let (device, kernels) = host();
        let memory = device.allocate(ByteLen::from_usize(bytes.len())).unwrap();
        memory.write(DeviceRange::whole(memory.len()), bytes).unwrap();
        Self { bench, card, host: (memory, kernels) }
    }

    fn hashes_agree(&self, spans: &[HashSpan], what: &str) {
        let [here, there] =
            [&self.card, &self.host].map(|(memory, kernels)| kernels.hash(&**memory, spans));
        assert_eq!(here.unwrap(), there.unwrap(), "{what}");
    }

    fn finish(self) {
        drop((self.card, self.host));
        self.bench.finish();
    }
}

#[test]
fn hashes_are_those_of_the_host() {
    let pair = Pair::new(&noise((1 << 20) + 4096, 1));
    assert_eq!(pair.card.1.site(), Site::Card);
    let mut edges: Vec<HashSpan> = [1, 15, 64, 65, 1023, 1024, 1025, 2048, 3000, 4096, 5121]
        .map(|len| hash_span(16, len, 0, true))
        .to_vec();
    // Parts of something longer: subtrees, and its end.
    edges.extend([
        hash_span(0, 1024, 7, false),
        hash_span(2048, 2048, 2, false),
        hash_span(4096, 4096, 1 << 40, false),
        hash_span(64, 777, 64, false),
    ]);
    pair.hashes_agree(&edges, "edges");
    // Neighbours, the last of them short; and the same apart.
    let run: Vec<_> = (0..9)
        .map(|at| hash_span(at * 8192, if at == 8 { 8191 } else { 8192 }, wide(at) * 8, false))
        .collect();
    pair.hashes_agree(&run, "neighbours");
    let apart: Vec<_> = run.iter().copied().step_by(2).rev().collect();
    pair.hashes_agree(&apart, "apart");
    // Longer than an item: merged.
    let long = [
        hash_span(0, 256 << 10, 0, true),
        hash_span(0, (256 << 10) + 1, 0, true),
        hash_span(16, (512 << 10) + 3000, 0, true),
        hash_span(0, 512 << 10, 512, false),
    ];
    pair.hashes_agree(&long, "long");
    pair.hashes_agree(&[], "nothing");
    pair.bench.assert_wiped("hashes");
    pair.finish();
}

#[test]
fn work_of_several_slices_comes_back_in_order() {
    let pair = Pair::new(&noise(8192, 2));
    // More items than one launch takes, of a few bytes: three launches, in two slots.
    let spans: Vec<_> =
        (0..7000).map(|at| hash_span(at % 400 * 16, 1 + at % 13, 0, true)).collect();
    pair.hashes_agree(&spans, "many");
    pair.bench.assert_wiped("many hashes");
    pair.finish();
}

#[test]
fn fingerprints_are_those_of_the_host_under_one_key_and_under_two() {
    let pair = Pair::new(&noise(300 << 10, 3));
    let lens = [1, 16, 17, 511, 512, 4095, 4096, 4097, 16_384, 16_385, 20_001, 256 << 10];
    let spans: Vec<_> = lens.iter().map(|len| range(32, *len)).collect();
    let (old, new) = (key(1), key(2));
    for renewed in [None, Some(&new)] {
        let [here, there] = [&pair.card, &pair.host]
            .map(|(memory, kernels)| kernels.fingerprint(&**memory, &spans, &old, renewed));
        let here = here.unwrap();
        assert_eq!(here, there.unwrap(), "{}", renewed.is_some());
        assert!(here.iter().all(|value| value.renewed.is_some() == renewed.is_some()));
        pair.bench.assert_wiped("fingerprints");
    }
    pair.finish();
}

#[test]
fn segments_are_sealed_and_opened_as_the_host_does() {
    let bytes = noise(96 << 10, 4);
    let pair = Pair::new(&bytes);
    let lens = [0, 1, 15, 16, 17, 63, 64, 65, 1000, 4096, 4097, 16_384];
    let mut spans = Vec::new();
    let mut at = 0;
    for (index, len) in (0..).zip(lens) {
        // Every second one in place, the others behind all.
        let target = if index % 2 == 0 { at } else { (48 << 10) + at };
        spans.push(cipher_span(at, len, target, index * 0x0101, index == 11));
        at += len.next_multiple_of(16);
    }
    let keys: Vec<[u8; 32]> =
        (0..lens.len()).map(|at| [u8::try_from(at).unwrap() + 1; 32]).collect();
    let both = [&pair.card, &pair.host];

    let [here, there] =
        both.map(|(memory, kernels)| kernels.seal(&**memory, &**memory, &spans, &keys).unwrap());
    assert_eq!(here, there);
    pair.bench.assert_wiped("sealing");
    let [sealed, expected] = both.map(|(memory, _)| whole(&**memory));
    assert!(sealed == expected && sealed != bytes);

    let back: Vec<_> = spans
        .iter()
        .map(|span| {
            let (target, len) = (span.target, span.source.len());
            let source = DeviceRange::checked(target, len, pair.card.0.len()).unwrap();
            vram_gpu::kernels::CipherSpan { source, target: span.source.start(), ..*span }
        })
        .collect();
    let [tags, expected] =
        both.map(|(memory, kernels)| kernels.tags(&**memory, &back, &keys).unwrap());
    assert!(tags == expected && tags == here);
    pair.bench.assert_wiped("tags");

    // One tag is bad: its segment stays as it is, the others are opened.
    let mut bad = tags.clone();
    bad[9][15] ^= 0x80;
    let [here, there] = both
        .map(|(memory, kernels)| kernels.open(&**memory, &**memory, &back, &keys, &bad).unwrap());
    assert_eq!(here, there);
    assert_eq!(here.iter().filter(|good| !**good).count(), 1);
    assert!(!here[9]);
    pair.bench.assert_wiped("opening");
    let [opened, expected] = both.map(|(memory, _)| whole(&**memory));
    assert!(opened == expected);
    for (number, span) in spans.iter().enumerate().filter(|(number, _)| *number != 9) {
        let place = span.source.to_usize_range().unwrap();
        assert!(opened[place.clone()] == bytes[place], "segment {number}");
    }
    pair.finish();
}

#[test]
fn a_flipped_bit_changes_the_values_of_its_span_alone() {
    let bench = Bench::new();
    let memory = bench.holding(&noise(64 << 10, 5));
    let kernels = bench.kernels();
    let spans: Vec<_> = (0..16).map(|at| range(at << 12, 4096)).collect();
    let hashes: Vec<_> = (0..16).map(|at| hash_span(at << 12, 4096, wide(at) * 4, false)).collect();
    let key = key(3);
    let values = || {
        let prints = kernels.fingerprint(&*memory, &spans, &key, None).unwrap();
        (kernels.hash(&*memory, &hashes).unwrap(), prints)
    };
    let before = values();
    for byte in [0_usize, 4095, 4096, 33_333, 65_535] {
        let address = memory.address().get();
        cuda_sim::Sim::flip_bit(bench.ordinal, address, wide(byte) * 8 + 5);
        let after = values();
        let differ = |differ: &dyn Fn(usize) -> bool| (0..16).filter(|at| differ(*at)).collect();
        let hashes: Vec<usize> = differ(&|at| before.0[at] != after.0[at]);
        let prints: Vec<usize> = differ(&|at| before.1[at] != after.1[at]);
        assert_eq!((hashes, prints), (vec![byte >> 12], vec![byte >> 12]), "byte {byte}");
        cuda_sim::Sim::flip_bit(bench.ordinal, address, wide(byte) * 8 + 5);
    }
    drop((memory, kernels));
    bench.finish();
}

#[test]
fn arguments_that_do_not_fit_are_refused_and_no_call_is_made() {
    let (bench, other) = (Bench::new(), Bench::new());
    let (memory, strange) = (bench.holding(&noise(8192, 6)), other.holding(&noise(8192, 6)));
    let kernels = bench.kernels();
    let calls = cuda_sim::Sim::faults(bench.ordinal).all_calls();
    let unfit = |outcome: Result<Vec<[u8; 32]>, KernelError>| match outcome {
        Err(KernelError::Unfit { why, .. }) => why,
        answer => panic!("{answer:?}"),
    };
    let hash =
        |start, len, first, root| kernels.hash(&*memory, &[hash_span(start, len, first, root)]);
    assert!(matches!(unfit(hash(8, 1024, 0, true)), Unfit::Unaligned { at: 8 }));
    assert!(matches!(unfit(hash(0, 0, 0, true)), Unfit::Length { .. }));
    assert!(matches!(unfit(hash(0, 2048, 1, false)), Unfit::NoSubtree { first_chunk: 1 }));
    assert!(matches!(
        hash(0, 9000, 0, true),
        Err(KernelError::Device(GpuError::OutOfBounds { .. }))
    ));
    let of_other = kernels.hash(&*strange, &[hash_span(0, 16, 0, true)]);
    assert_eq!(unfit(of_other), Unfit::OtherMemory);
    let (device, _) = host();
    let of_host = device.allocate(ByteLen::new(4096)).unwrap();
    assert_eq!(unfit(kernels.hash(&*of_host, &[hash_span(0, 16, 0, true)])), Unfit::OtherMemory);
    let spans = [cipher_span(0, 64, 32, 0, true)];
    let overlap = kernels.seal(&*memory, &*memory, &spans, &[[1; 32]]);
    assert!(matches!(overlap, Err(KernelError::Unfit { why: Unfit::Overlap, .. })));
    let lists = kernels.tags(&*memory, &spans, &[]);
    assert!(matches!(lists, Err(KernelError::Unfit { why: Unfit::Lists { .. }, .. })));
    assert_eq!(cuda_sim::Sim::faults(bench.ordinal).all_calls(), calls);
    drop((memory, strange, kernels));
    bench.finish();
    other.finish();
}

#[test]
fn memory_behind_a_wrapper_is_recognised() {
    let bench = Bench::new();
    let kernels = bench.kernels();
    let wrapper = FaultDevice::new(bench.device.clone(), FaultPlan::new(1));
    let memory = wrapper.allocate(ByteLen::new(4096)).unwrap();
    memory.fill(DeviceRange::whole(memory.len()), 7).unwrap();
    kernels.hash(&*memory, &[hash_span(0, 4096, 0, true)]).unwrap();
    drop((memory, wrapper, kernels));
    bench.finish();
}

#[test]
fn many_threads_share_the_slots_and_get_their_own_results() {
    let bench = Bench::new();
    let kernels = bench.kernels();
    let memories: Vec<_> = (0..8).map(|seed| bench.holding(&noise(20_000, 10 + seed))).collect();
    let (device, host) = host();
    std::thread::scope(|scope| {
        for memory in &memories {
            let (kernels, host, device) = (&kernels, &host, &device);
            scope.spawn(move || {
                let bytes = whole(&**memory);
                let copy = device.allocate(memory.len()).unwrap();
                copy.write(DeviceRange::whole(copy.len()), &bytes).unwrap();
                let spans: Vec<_> =
                    (1..12).map(|at| hash_span(at * 16, 700 * at, 0, true)).collect();
                let expected = host.hash(&*copy, &spans).unwrap();
                for _round in 0..3 {
                    assert_eq!(kernels.hash(&**memory, &spans).unwrap(), expected);
                }
            });
        }
    });
    bench.assert_wiped("all threads");
    drop((memories, kernels));
    bench.finish();
}
