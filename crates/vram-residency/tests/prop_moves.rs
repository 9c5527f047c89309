//! Property: after any sequence of moves a shard keeps its bytes and its id, the ledger equals a
//! plain sum, and a refusal changes nothing (P15, P17; P2 after compaction).
//!
//! Method: the reference is a map from ids to bytes and the GPU of each shard, and sums over it.
//! The two GPUs are small, so that refusals are frequent.

#![expect(
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a panic is the failure of the test"
)]

#[macro_use]
extern crate vram_testkit;

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use vram_residency::{
    ByteLen, CompactBudget, CompactEnd, ImportRequest, ParkedShard, Protection, SealKey,
    SealRequest, SealedShard, SegmentSize, ShardId, SivScope, Threads, VramError, VramManager,
};

const TOTAL: u64 = 24 << 10;
const PARK_LIMIT: u64 = 20 << 10;

#[derive(Clone, Debug)]
enum Move {
    Seal { len: usize, gpu: u32, open: bool, by_segment: bool },
    Free(Index),
    Park(Index),
    Wake(Index, u32),
    GiveUp(Index),
    Migrate(Index, u32),
    Turn(Index),
    Reseal(Index, bool),
    Carry(Index, u32),
    Compact(u32, Option<u64>),
}

fn moves() -> impl Strategy<Value = Move> {
    let gpu = 0..2_u32;
    let which = any::<Index>;
    prop_oneof![
        6 => (prop_oneof![Just(0), 1..300_usize, 1..9000_usize], gpu.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(len, gpu, open, by_segment)| Move::Seal { len, gpu, open, by_segment }),
        2 => which().prop_map(Move::Free),
        2 => which().prop_map(Move::Park),
        2 => (which(), gpu.clone()).prop_map(|(which, gpu)| Move::Wake(which, gpu)),
        1 => which().prop_map(Move::GiveUp),
        2 => (which(), gpu.clone()).prop_map(|(which, gpu)| Move::Migrate(which, gpu)),
        1 => which().prop_map(Move::Turn),
        1 => (which(), any::<bool>()).prop_map(|(which, first)| Move::Reseal(which, first)),
        1 => (which(), gpu.clone()).prop_map(|(which, gpu)| Move::Carry(which, gpu)),
        2 => (gpu, prop::option::of(0..20_000_u64)).prop_map(|(gpu, max)| Move::Compact(gpu, max)),
    ]
}

/// The expected state.
#[derive(Default)]
struct Reference {
    resident: BTreeMap<ShardId, (SealedShard, Vec<u8>, u32)>,
    parked: Vec<(ParkedShard, SealedShard, Vec<u8>)>,
}

impl Reference {
    fn pick(&self, which: Index) -> Option<(SealedShard, Vec<u8>, u32)> {
        if self.resident.is_empty() {
            return None;
        }
        self.resident.values().nth(which.index(self.resident.len())).cloned()
    }

    fn keep(&mut self, shard: SealedShard, bytes: Vec<u8>) {
        let gpu = shard.gpu_index;
        self.resident.insert(shard.shard_id.clone(), (shard, bytes, gpu));
    }

    fn used(&self, gpu: u32) -> u64 {
        let here = self.resident.values().filter(|(_, _, at)| *at == gpu);
        here.map(|(_, bytes, _)| (bytes.len() as u64).next_multiple_of(256)).sum()
    }
}

fn keys() -> [SealKey; 2] {
    [SealKey::from_bytes(&[1; 32]), SealKey::from_bytes(&[2; 32])]
}

fn manager() -> VramManager {
    let [first, second] = keys();
    let manager = VramManager::builder()
        .host_device(ByteLen::new(TOTAL))
        .host_device(ByteLen::new(TOTAL))
        .key(first)
        .segment_size(SegmentSize::MIN)
        .park_limit(ByteLen::new(PARK_LIMIT))
        .threads(Threads::ONE)
        .build()
        .unwrap();
    manager.add_key(second).unwrap();
    manager
}

/// A refusal for lack of room, which changes nothing.
fn is_room(error: &VramError) -> bool {
    matches!(error, VramError::InsufficientVram(_) | VramError::ParkLimit { .. })
}

#[expect(clippy::too_many_lines, reason = "one arm for each operation")]
fn carry_out(manager: &VramManager, reference: &mut Reference, step: &Move, number: usize) {
    match *step {
        Move::Seal { len, gpu, open, by_segment } => {
            let mixed = |at: usize| (at + number).wrapping_mul(0x9E37_79B9).to_le_bytes();
            let bytes: Vec<u8> = (0..len).map(|at| mixed(at)[2]).collect();
            let protection = if open { Protection::Authenticated } else { Protection::Encrypted };
            let scope = if by_segment { SivScope::Segment } else { SivScope::Shard };
            let request = SealRequest::new("model", gpu).protection(protection).scope(scope);
            match manager.seal(request, &bytes) {
                Ok(shard) => reference.keep(shard, bytes),
                Err(error) => assert!(is_room(&error), "{error}"),
            }
        }
        Move::Free(which) => {
            if let Some((shard, ..)) = reference.pick(which) {
                manager.free_shard(&shard).unwrap();
                reference.resident.remove(&shard.shard_id);
            }
        }
        Move::Park(which) => {
            if let Some((shard, bytes, _)) = reference.pick(which) {
                match manager.park(&shard) {
                    Ok(parked) => {
                        reference.resident.remove(&shard.shard_id);
                        reference.parked.push((parked, shard, bytes));
                    }
                    Err(error) => assert!(is_room(&error), "{error}"),
                }
            }
        }
        Move::Wake(which, gpu) => {
            if !reference.parked.is_empty() {
                let (parked, shard, bytes) =
                    reference.parked.remove(which.index(reference.parked.len()));
                match manager.wake(parked, gpu) {
                    Ok(woken) => {
                        assert_eq!(woken.sealed_data, shard.sealed_data);
                        assert_eq!(manager.unseal_model(&shard).unwrap(), bytes);
                        reference.keep(woken, bytes);
                    }
                    Err(refused) => {
                        let (parked, error) = refused.into_parts();
                        assert!(is_room(&error), "{error}");
                        reference.parked.push((parked, shard, bytes));
                    }
                }
            }
        }
        Move::GiveUp(which) => {
            if !reference.parked.is_empty() {
                let (parked, shard, _) =
                    reference.parked.remove(which.index(reference.parked.len()));
                drop(parked);
                let gone = manager.unseal_model(&shard);
                assert!(matches!(gone, Err(VramError::ShardFreed { .. })), "{gone:?}");
            }
        }
        Move::Migrate(which, gpu) => {
            if let Some((shard, bytes, _)) = reference.pick(which) {
                match manager.migrate_shard(&shard, gpu) {
                    Ok(moved) => reference.keep(moved, bytes),
                    Err(error) => assert!(is_room(&error), "{error}"),
                }
            }
        }
        Move::Turn(which) => {
            if let Some((shard, bytes, _)) = reference.pick(which) {
                let turned = match shard.protection {
                    Protection::Encrypted => manager.open_resident(&shard),
                    _ => manager.close_resident(&shard),
                };
                reference.keep(turned.unwrap(), bytes);
            }
        }
        Move::Reseal(which, first) => {
            if let Some((shard, bytes, _)) = reference.pick(which) {
                let key = keys()[usize::from(!first)].id();
                let resealed = manager.reseal_shard(&shard, &key).unwrap();
                let fields = resealed.sealed_data.parse_unauthenticated().unwrap();
                assert_eq!(fields.key_id(), key);
                reference.keep(resealed, bytes);
            }
        }
        Move::Carry(which, gpu) => {
            if let Some((shard, bytes, _)) = reference.pick(which) {
                let mut image = Vec::new();
                manager.export(&shard, &mut image).unwrap();
                match manager.import(ImportRequest::new("model", gpu), image.as_slice()) {
                    Ok(twin) => reference.keep(twin, bytes),
                    Err(error) => assert!(is_room(&error), "{error}"),
                }
            }
        }
        Move::Compact(gpu, max) => {
            let mut budget = CompactBudget::new();
            budget.max_bytes = max.map(ByteLen::new);
            let report = manager.compact(gpu, budget).unwrap();
            assert!(report.stranded.is_empty());
            assert!(report.skipped.iter().all(|(_, error)| is_room(error)));
            assert!(max.is_none_or(|max| report.moved_bytes.get() <= max));
            if report.end == CompactEnd::Finished && report.skipped.is_empty() {
                assert!(report.hole_count <= 1, "P2: {report:?}");
            }
        }
    }
}

fn assert_equal(manager: &VramManager, reference: &Reference) {
    for gpu in 0..2 {
        let capacity = manager.capacity(gpu).unwrap();
        assert_eq!(capacity.used.get(), reference.used(gpu));
        assert_eq!(capacity.reserved, ByteLen::ZERO);
        assert_eq!(capacity.used.get() + capacity.free.get(), TOTAL);
    }
    let listed: Vec<ShardId> = manager.shards().into_iter().map(|shard| shard.shard_id).collect();
    assert!(listed.iter().eq(reference.resident.keys()));
    let parked: u64 = reference.parked.iter().map(|(parked, ..)| parked.host_len().get()).sum();
    let capacity = manager.park_capacity();
    assert_eq!(capacity.used.get(), parked);
    assert_eq!(capacity.shard_count, reference.parked.len() as u64);
}

proptest! {
    #[test]
    fn moves_keep_bytes_ids_and_books(steps in vec(moves(), 1..30)) {
        let manager = manager();
        let mut reference = Reference::default();
        for (number, step) in steps.into_iter().enumerate() {
            carry_out(&manager, &mut reference, &step, number);
            assert_equal(&manager, &reference);
        }
        for (shard, bytes, _) in reference.resident.values() {
            prop_assert_eq!(&manager.unseal_model(shard).unwrap(), bytes);
        }
        for (_, shard, _) in &reference.parked {
            let refused = manager.unseal_model(shard);
            prop_assert!(matches!(refused, Err(VramError::Parked { .. })), "{:?}", refused);
        }
    }
}
