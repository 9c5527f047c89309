// The properties G1 to G13 of the VRAM residency property-testing guide (docs/properties.md).
//
// This file has no `home` of its own. The file that includes it provides, in scope,
//
//     mod home {
//         pub(crate) fn manager(capacities: Vec<usize>) -> Result<VramManager, VramError>;
//         pub(crate) fn config() -> ProptestConfig;
//     }
//
// so that the same properties run over host devices and over CUDA ones. Reference: plain bytes in a
// `Vec`, and sums in `usize`. Every property runs `PROPTEST_CASES` cases; if that is not set, 256
// or the share that it states. Where a case moves real MiB (G1 up to 10 MB, G3, G4), the full count
// uses units of 4 KiB and `in_real_mib` runs a thousandth; the run prints the number of both.

use std::collections::HashSet;
use std::sync::Arc;
use std::thread;

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{TestRunner, contextualize_config};
use vram_residency::*;
use vram_test_rigs::content as bytes;

/// One MiB.
const MIB: usize = 1 << 20;
/// The unit that replaces one MiB where the full count of cases runs.
const UNIT: usize = 4 << 10;

/// `PROPTEST_CASES`, or the number of `home` without it.
fn full() -> ProptestConfig {
    contextualize_config(home::config())
}

/// A share of the cases, for properties whose single case does hundreds of operations. If
/// `PROPTEST_CASES` is set, proptest's macros use it instead of any other number, so a run never
/// has fewer cases than requested.
fn fewer(divisor: u32) -> ProptestConfig {
    let cases = (full().cases / divisor).max(16);
    ProptestConfig { cases, ..full() }
}

/// Runs a property whose cases move real MiB for a thousandth of the cases, at least 16. Does not
/// use a macro, which would take `PROPTEST_CASES` instead (see [`fewer`]).
fn in_real_mib<S: Strategy>(
    strategy: S,
    property: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    let cases = (full().cases / 1000).max(16);
    println!("{cases} cases in real MiB, {} in units of {UNIT} bytes", full().cases);
    let config = ProptestConfig { cases, source_file: Some(file!()), ..full() };
    let mut runner = TestRunner::new(config);
    let failure = runner.run(&strategy, property).err().map(|failure| failure.to_string());
    assert_eq!(failure, None, "{runner}");
}

fn one_gpu(capacity: usize) -> Result<VramManager, VramError> {
    home::manager(vec![capacity])
}

// G1: unseal(seal(x)) = x.

proptest! {
    #![proptest_config(full())]

    #[test]
    fn g01_what_was_sealed_comes_back(data in prop::collection::vec(any::<u8>(), 0..=10_000)) {
        let manager = one_gpu(MIB)?;
        let shard = manager.seal_model("model", 0, &data)?;
        prop_assert_eq!(shard.plaintext_len as usize, data.len());
        prop_assert_eq!(manager.unseal_model(&shard)?, data);
    }

    #[test]
    fn g01_every_size_up_to_a_million_comes_back(
        len in prop_oneof![
            4 => 0..=1_000_000_usize,
            1 => (0..=3_usize, -2..=2_isize).prop_map(|(segments, around)| {
                (segments * 256 * 1024).saturating_add_signed(around)
            }),
        ],
        seed: u64,
    ) {
        let manager = one_gpu(MIB)?;
        let data = bytes(len, seed);
        let shard = manager.seal_model("model", 0, &data)?;
        prop_assert!(manager.unseal_model(&shard)? == data);
        prop_assert!(manager.unseal_and_free(&shard)? == data);
        prop_assert_eq!(manager.get_used_vram(0)?, 0);
    }
}

#[test]
fn g01_sizes_up_to_ten_megabytes_come_back() {
    let comes_back = |len, seed| {
        let manager = one_gpu(16 * MIB)?;
        let data = bytes(len, seed);
        let shard = manager.seal_model("model", 0, &data)?;
        prop_assert!(manager.unseal_model(&shard)? == data);
        Ok(())
    };
    proptest!(full(), |(len in UNIT..=10 * UNIT, seed: u64)| comes_back(len, seed)?);
    in_real_mib((1_000_000..=10_000_000_usize, any::<u64>()), |(len, seed)| comes_back(len, seed));
}

// G2: same key, same model, same data: identical sealed_data.

proptest! {
    #![proptest_config(full())]

    #[test]
    fn g02_sealing_twice_gives_the_same_record(
        data in prop::collection::vec(any::<u8>(), 0..=10_000),
        model in "[a-z0-9/._-]{1,40}",
    ) {
        let manager = one_gpu(MIB)?;
        let first = manager.seal_model(&model, 0, &data)?;
        let second = manager.seal_model(&model, 0, &data)?;
        prop_assert_eq!(&first.sealed_data, &second.sealed_data);
        prop_assert_ne!(&first.shard_id, &second.shard_id);

        let other = manager.seal_model(&format!("{model}x"), 0, &data)?;
        prop_assert_ne!(&first.sealed_data, &other.sealed_data, "the model is part of the seal");
        let mut changed = data;
        changed.push(0);
        let longer = manager.seal_model(&model, 0, &changed)?;
        prop_assert_ne!(&first.sealed_data, &longer.sealed_data);
    }

    #[test]
    fn g02_two_managers_with_one_key_agree_and_with_two_keys_do_not(
        data in prop::collection::vec(any::<u8>(), 0..=1000),
        key: [u8; 32],
        other: [u8; 32],
    ) {
        prop_assume!(key != other);
        let manager = |key: [u8; 32]| {
            VramManager::builder()
                .host_device(ByteLen::new(64 * 1024))
                .key(SealKey::from_bytes(&key))
                .build()
        };
        let here = manager(key)?.seal_model("model", 0, &data)?;
        let there = manager(key)?.seal_model("model", 0, &data)?;
        let elsewhere = manager(other)?.seal_model("model", 0, &data)?;
        prop_assert_eq!(&here.sealed_data, &there.sealed_data);
        prop_assert_ne!(&here.sealed_data, &elsewhere.sealed_data);
    }
}

// G3: used + free = total and used <= total, after any sequence of seals that fit or do not.

fn accounts_hold(
    total: usize,
    lens: &[usize],
    unit: usize,
    data: &[u8],
) -> Result<(), TestCaseError> {
    let manager = one_gpu(total * unit)?;
    let mut expected = 0_usize;
    for len in lens.iter().map(|len| len * unit) {
        match manager.seal_model("model", 0, &data[..len]) {
            Ok(_) => expected += len,
            Err(VramError::InsufficientVram(shortfall)) => {
                // Every length is a multiple of the granule and nothing was freed, so the free
                // bytes are one hole: a refusal is correct only if the bytes are missing.
                prop_assert!(expected + len > total * unit, "refused with room: {}", shortfall);
            }
            Err(other) => prop_assert!(false, "not a capacity error: {}", other),
        }
        let (used, free) = (manager.get_used_vram(0)?, manager.get_free_vram(0)?);
        prop_assert_eq!(used, expected);
        prop_assert!(used <= total * unit);
        prop_assert_eq!(used + free, total * unit);
    }
    Ok(())
}

#[test]
fn g03_used_and_free_always_add_up() {
    let sequence = || (1..=1000_usize, prop::collection::vec(1..=100_usize, 0..=50));
    let data = bytes(100 * MIB, 3);
    proptest!(full(), |((total, lens) in sequence())| accounts_hold(total, &lens, UNIT, &data)?);
    in_real_mib(sequence(), |(total, lens)| accounts_hold(total, &lens, MIB, &data));
}

// G4: freeing restores the exact free figure.

fn freeing_restores(len: usize, beside: usize, data: &[u8]) -> Result<(), TestCaseError> {
    let manager = one_gpu(len + beside + 1024)?;
    let _neighbour = manager.seal_model("neighbour", 0, &data[..beside])?;
    let before = manager.get_free_vram(0)?;
    let shard = manager.seal_model("model", 0, &data[..len])?;
    prop_assert!(manager.get_free_vram(0)? < before);
    let receipt = manager.free_shard(&shard)?;
    prop_assert_eq!(manager.get_free_vram(0)?, before);
    prop_assert!(receipt.wiped);
    prop_assert!(manager.unseal_model(&shard).is_err(), "a freed shard is gone");
    prop_assert!(manager.free_shard(&shard).is_err(), "and cannot be freed twice");
    prop_assert_eq!(manager.get_free_vram(0)?, before, "which changes nothing");
    Ok(())
}

#[test]
fn g04_freeing_restores_the_free_figure() {
    let data = bytes(100 * MIB, 4);
    let odd = (1..=100 * UNIT, 0..=2 * UNIT);
    proptest!(full(), |((len, beside) in odd)| freeing_restores(len, beside, &data)?);
    in_real_mib(1..=100_usize, |mib| freeing_restores(mib * MIB, UNIT, &data));
}

// G5: MiB to bytes never overflows and is exact where it fits; sums of sizes never overflow.

proptest! {
    #![proptest_config(full())]

    #[test]
    fn g05_mib_to_bytes_saturates_and_is_exact_where_it_fits(
        mib in prop_oneof![
            any::<u64>(),
            0..=4096_u64,
            (1_u64 << 44) - 2..=(1 << 44) + 2,
            u64::MAX - 2..=u64::MAX,
        ],
    ) {
        let exact = u128::from(mib) << 20;
        let expected = u64::try_from(exact).unwrap_or(u64::MAX);
        prop_assert_eq!(ByteLen::from_mib_saturating(mib).get(), expected);
        let fits = u64::try_from(exact).ok();
        prop_assert_eq!(ByteLen::checked_from_mib(mib).map(ByteLen::get), fits);
    }

    #[test]
    fn g05_shard_size_and_overhead_never_overflow(
        len in prop_oneof![any::<u64>(), u64::MAX - 2..=u64::MAX, 0..=2_u64],
        overhead in prop_oneof![any::<u64>(), u64::MAX - 2..=u64::MAX, 0..=2_u64],
    ) {
        let sum = u64::try_from(u128::from(len) + u128::from(overhead)).ok();
        let answer = checked_shard_size(ByteLen::new(len), ByteLen::new(overhead));
        prop_assert_eq!(answer.map(ByteLen::get), sum);
    }
}

// G6: ids are unique, rise, and are of the form `orch-shard-…`, longer than 20.

proptest! {
    #![proptest_config(fewer(16))]

    #[test]
    fn g06_ids_are_unique_and_well_formed(count in 1..=1000_usize, threads in 1..=4_usize) {
        let manager = one_gpu(MIB)?;
        let ids = thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|_| {
                    scope.spawn(|| {
                        let seal = |_| Ok(manager.seal_model("model", 0, b"")?.shard_id);
                        (0..count.div_ceil(threads)).map(seal).collect::<Result<Vec<_>, VramError>>()
                    })
                })
                .collect();
            workers
                .into_iter()
                .map(|worker| worker.join().expect("no thread panics"))
                .collect::<Result<Vec<Vec<ShardId>>, VramError>>()
        })?;
        for in_one_thread in &ids {
            prop_assert!(in_one_thread.is_sorted(), "ids rise in the order they are made");
        }
        let all: Vec<_> = ids.into_iter().flatten().collect();
        for id in &all {
            prop_assert!(id.starts_with("orch-shard-"), "{}", id);
            prop_assert!(id.len() > 20, "{}", id);
        }
        prop_assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    }
}

// G7: a request above capacity is refused with a capacity error.

proptest! {
    #![proptest_config(full())]

    #[test]
    fn g07_more_than_the_capacity_is_refused(
        capacity in 0..=64 * 1024_usize,
        over in prop_oneof![1..=2_usize, 1..=64 * 1024_usize],
    ) {
        let manager = one_gpu(capacity)?;
        let refused = manager.seal_model("model", 0, &bytes(capacity + over, 7));
        match refused {
            Err(VramError::InsufficientVram(shortfall)) => {
                prop_assert!(shortfall.needed > shortfall.room, "{}", shortfall);
            }
            other => prop_assert!(false, "want a capacity error, got {:?}", other.map(|_| ())),
        }
        prop_assert_eq!(manager.get_used_vram(0)?, 0);

        let whole = manager.seal_model("model", 0, &bytes(capacity, 7))?;
        prop_assert_eq!(manager.get_free_vram(0)?, 0, "the whole capacity can be given out");
        prop_assert_eq!(manager.unseal_and_free(&whole)?.len(), capacity);
        prop_assert_eq!(manager.get_free_vram(0)?, capacity);
    }
}

// G8: offset + length beyond the data is refused; inside it, exactly those bytes come back.

fn near_the_edges() -> impl Strategy<Value = usize> {
    prop_oneof![
        6 => 0..=2000_usize,
        1 => usize::MAX - 2000..=usize::MAX,
        1 => select(vec![1_usize << 31, 1 << 32, 1 << 63, usize::MAX]),
    ]
}

proptest! {
    #![proptest_config(full())]

    #[test]
    fn g08_a_read_is_exact_or_refused(
        data in prop::collection::vec(any::<u8>(), 0..=2000),
        offset in near_the_edges(),
        length in near_the_edges(),
    ) {
        let manager = one_gpu(MIB)?;
        let shard = manager.seal_model("model", 0, &data)?;
        let answer = manager.read_shard_at_offset(&shard, offset, length);
        match offset.checked_add(length).filter(|&end| end <= data.len()) {
            Some(end) => prop_assert_eq!(answer?, &data[offset..end]),
            None => prop_assert!(matches!(answer, Err(VramError::OutOfBounds { .. })), "{answer:?}"),
        }
        prop_assert_eq!(manager.read_shard_at_offset(&shard, data.len(), 0)?, b"");
        prop_assert!(manager.read_shard_at_offset(&shard, data.len(), 1).is_err());
    }

    #[test]
    fn g08_a_read_across_segments_is_exact(
        len in 256 * 1024..=900 * 1024_usize,
        seed: u64,
        a: prop::sample::Index,
        b: prop::sample::Index,
    ) {
        let manager = one_gpu(MIB)?;
        let data = bytes(len, seed);
        let shard = manager.seal_model("model", 0, &data)?;
        let (a, b) = (a.index(len + 1), b.index(len + 1));
        let (start, end) = (a.min(b), a.max(b));
        prop_assert!(manager.read_shard_at_offset(&shard, start, end - start)? == data[start..end]);
    }
}

// G9: concurrent sealing and unsealing is safe: no panic, no lost byte, no lost capacity.

proptest! {
    #![proptest_config(fewer(8))]

    #[test]
    fn g09_threads_lose_no_byte_and_no_capacity(
        threads in 2..=10_usize,
        operations in 10..=100_usize,
        len_max in select(vec![64_usize, 4096, 40_000]),
        seed: u64,
    ) {
        let capacity = 2 * MIB;
        let manager = Arc::new(one_gpu(capacity)?);
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let manager = Arc::clone(&manager);
                thread::spawn(move || -> Result<(), VramError> {
                    for operation in 0..operations {
                        let tag = seed ^ (thread << 32 | operation) as u64;
                        let data = bytes(tag as usize % (len_max + 1), tag);
                        let shard = match manager.seal_model("model", 0, &data) {
                            Ok(shard) => shard,
                            Err(VramError::InsufficientVram(_)) => continue,
                            Err(other) => return Err(other),
                        };
                        assert!(manager.unseal_model(&shard)? == data, "a byte was lost");
                        // Some stay, so that the threads do not all work on an empty device.
                        if operation % 8 != 0 {
                            assert!(manager.unseal_and_free(&shard)? == data, "a byte was lost");
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        for worker in workers {
            worker.join().expect("no thread panics")?;
        }
        for shard in manager.shards() {
            prop_assert!(manager.verify_shard_integrity(&shard)?);
            manager.free_shard(&shard)?;
        }
        prop_assert_eq!(manager.get_used_vram(0)?, 0);
        prop_assert_eq!(manager.get_free_vram(0)?, capacity);
        let whole = manager.seal_model("model", 0, &bytes(capacity, seed))?;
        prop_assert_eq!(whole.plaintext_len as usize, capacity, "and no hole was lost");
    }
}

// G10: tampering with sealed_data is detected.

/// The results of each call for a handle whose record was altered.
fn altered_record_is_refused(
    manager: &VramManager,
    bad: &SealedShard,
    good: &SealedShard,
    data: &[u8],
) -> Result<(), TestCaseError> {
    prop_assert!(!manager.verify_shard_integrity(bad)?, "verify says altered");
    let altered = |answer: Result<(), VramError>| matches!(answer, Err(VramError::HandleAltered { .. }));
    prop_assert!(altered(manager.unseal_model(bad).map(drop)));
    prop_assert!(altered(manager.unseal_and_free(bad).map(drop)));
    prop_assert!(altered(manager.free_shard(bad).map(drop)));
    prop_assert!(altered(manager.read_shard_at_offset(bad, 0, 0).map(drop)));
    prop_assert!(altered(manager.migrate_shard(bad, 0).map(drop)));
    // A bad handle never changes the state of a shard: the valid one still works.
    prop_assert_eq!(manager.unseal_model(good)?, data);
    Ok(())
}

proptest! {
    #![proptest_config(full())]

    #[test]
    fn g10_a_flipped_bit_of_the_record_is_detected(
        data in prop::collection::vec(any::<u8>(), 0..=2000),
        byte: prop::sample::Index,
        flip in 1..=255_u8,
    ) {
        let manager = one_gpu(MIB)?;
        let good = manager.seal_model("model", 0, &data)?;
        let mut bad = good.clone();
        let at = byte.index(bad.sealed_data.len());
        bad.sealed_data[at] ^= flip;
        altered_record_is_refused(&manager, &bad, &good, &data)?;
    }
}

#[test]
fn g10_every_bit_of_a_small_record_is_detected() -> Result<(), TestCaseError> {
    let manager = one_gpu(MIB)?;
    let data = bytes(100, 10);
    let good = manager.seal_model("model", 0, &data)?;
    assert!(!good.sealed_data.is_empty());
    for at in 0..good.sealed_data.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad.sealed_data[at] ^= 1 << bit;
            altered_record_is_refused(&manager, &bad, &good, &data)?;
        }
    }
    Ok(())
}

#[test]
fn g10_the_other_fields_of_a_handle_are_bound_too() -> Result<(), VramError> {
    let manager = home::manager(vec![MIB, MIB])?;
    let good = manager.seal_model("model", 0, b"weights")?;
    let other = manager.seal_model("model", 0, b"other weights")?;
    let with = |change: &dyn Fn(&mut SealedShard)| {
        let mut bad = good.clone();
        change(&mut bad);
        manager.unseal_model(&bad)
    };
    for answer in [
        with(&|bad| bad.shard_id = other.shard_id.clone()),
        with(&|bad| bad.gpu_index = 1),
        with(&|bad| bad.model_id = "another".into()),
        with(&|bad| bad.plaintext_len += 1),
        with(&|bad| bad.protection = Protection::Authenticated),
        with(&|bad| bad.sealed_data = other.sealed_data.clone()),
    ] {
        assert!(matches!(answer, Err(VramError::HandleAltered { .. })), "{:?}", answer.map(|_| ()));
    }
    let elsewhere = one_gpu(MIB)?;
    assert!(matches!(elsewhere.unseal_model(&good), Err(VramError::ForeignHandle { .. })));
    assert_eq!(manager.unseal_model(&good)?, b"weights");
    Ok(())
}

// G11: an untouched shard verifies, including empty data.

proptest! {
    #![proptest_config(full())]

    #[test]
    fn g11_an_untouched_shard_verifies(
        data in prop_oneof![
            1 => Just(Vec::new()),
            9 => prop::collection::vec(any::<u8>(), 0..=10_000),
        ],
        authenticated: bool,
    ) {
        let manager = one_gpu(MIB)?;
        let protection =
            if authenticated { Protection::Authenticated } else { Protection::Encrypted };
        let request = SealRequest::new("model", 0).protection(protection);
        let shard = manager.seal(request, &data)?;
        prop_assert_eq!(shard.protection, protection);
        prop_assert!(manager.verify_shard_integrity(&shard)?);
        manager.ensure_intact(&shard)?;
        prop_assert_eq!(manager.unseal_model(&shard)?, data);
        prop_assert!(manager.verify_shard_integrity(&shard)?, "reading changes nothing");
    }
}

// G12: migration changes gpu_index, keeps the bytes, moves the accounting.

proptest! {
    #![proptest_config(full())]

    #[test]
    fn g12_migration_moves_the_shard_and_its_account(
        data in prop::collection::vec(any::<u8>(), 0..=10_000),
        gpus in 2..=4_u32,
        source: prop::sample::Index,
        target: prop::sample::Index,
    ) {
        let source = source.index(gpus as usize) as u32;
        let target = target.index(gpus as usize) as u32;
        let manager = home::manager(vec![64 * 1024; gpus as usize])?;
        let shard = manager.seal_model("model", source, &data)?;
        let used = manager.get_used_vram(source)?;

        let moved = manager.migrate_shard(&shard, target)?;
        prop_assert_eq!(moved.gpu_index, target);
        prop_assert_eq!(&moved.shard_id, &shard.shard_id);
        prop_assert_eq!(&moved.sealed_data, &shard.sealed_data);
        prop_assert_eq!(manager.unseal_model(&moved)?, &data[..]);
        prop_assert_eq!(manager.unseal_model(&shard)?, &data[..], "older handles stay good");
        for gpu in 0..gpus {
            let expected = if gpu == target { used } else { 0 };
            prop_assert_eq!(manager.get_used_vram(gpu)?, expected, "gpu {}", gpu);
        }
    }

    #[test]
    fn g12_a_migration_without_room_leaves_everything_as_it_was(
        data in prop::collection::vec(any::<u8>(), 1..=10_000),
    ) {
        let manager = home::manager(vec![64 * 1024, data.len() - 1])?;
        let shard = manager.seal_model("model", 0, &data)?;
        let used = manager.get_used_vram(0)?;
        let refused = manager.migrate_shard(&shard, 1);
        prop_assert!(matches!(refused, Err(VramError::InsufficientVram(_))));
        prop_assert_eq!(manager.get_used_vram(0)?, used);
        prop_assert_eq!(manager.get_used_vram(1)?, 0);
        prop_assert_eq!(manager.unseal_model(&shard)?, data);
    }
}

// G13: an unknown GPU index is refused.

proptest! {
    #![proptest_config(full())]

    #[test]
    fn g13_an_unknown_gpu_is_refused(
        gpus in 1..=8_u32,
        beyond in prop_oneof![0..=8_u32, any::<u32>(), Just(u32::MAX)],
    ) {
        let manager = home::manager(vec![4096; gpus as usize])?;
        let index = gpus.saturating_add(beyond);
        let unknown = |answer: Result<(), VramError>| {
            matches!(answer, Err(VramError::UnknownGpu { gpu, count }) if gpu == index && count == gpus)
        };
        prop_assert!(unknown(manager.seal_model("model", index, b"weights").map(drop)));
        prop_assert!(unknown(manager.get_used_vram(index).map(drop)));
        prop_assert!(unknown(manager.get_free_vram(index).map(drop)));
        let shard = manager.seal_model("model", gpus - 1, b"weights")?;
        prop_assert!(unknown(manager.migrate_shard(&shard, index).map(drop)));
        prop_assert_eq!(manager.unseal_model(&shard)?, b"weights");
    }
}
