//! Links between GPUs that fail or deliver wrong bytes, and migrations over them.

use vram_residency::device::GpuError;
use vram_residency::device::fault::{Action, Op, When};
use vram_residency::{GpuIndex, Protection, Threads, VramError};
use vram_test_rigs::{Faults, Outcome, Row, weights};

use super::devices::{LEN, rig, rig_with, seal};

#[test]
fn a_peer_link_that_lies_is_found_and_gone_around() {
    for action in [
        Action::DropCopy,
        Action::ShortCopy { keep: 5000 },
        Action::FlipBit { byte: 4100, bit: 0 },
        Action::FlipAnyBit,
    ] {
        let rig = rig();
        let shard = seal(&rig, Protection::Encrypted);
        rig.devices[1].add(Op::PeerCopy, When::From(1), action).unwrap();
        let moved = rig.manager.migrate_shard(&shard, 1).unwrap();
        assert_eq!((moved.gpu_index, &moved.shard_id), (1, &shard.shard_id));
        assert_eq!(rig.devices[1].call_count(Op::PeerCopy), 1, "the link was not tried");
        assert_eq!(rig.used(0), 0);
        assert_eq!(rig.manager.unseal_model(&shard).unwrap(), weights(LEN));
    }
}

#[test]
fn a_migration_whose_bytes_never_arrive_leaves_the_source_as_it_was() {
    let rig = rig();
    let shard = seal(&rig, Protection::Encrypted);
    rig.devices[1].add(Op::PeerCopy, When::From(1), Action::DropCopy).unwrap();
    rig.devices[1].add(Op::QueueWrite, When::From(1), Action::DropCopy).unwrap();
    let refused = rig.manager.migrate_shard(&shard, 1);
    match refused {
        Err(VramError::WriteNotKept { gpu: 1, segments }) => assert_eq!(segments.count(), 6),
        other => panic!("{other:?}"),
    }
    assert_eq!(rig.used(1), 0);
    assert!(rig.manager.verify_shard_integrity(&shard).unwrap());
    rig.devices[1].clear();
    assert_eq!(rig.manager.migrate_shard(&shard, 1).unwrap().gpu_index, 1);
}

#[test]
fn a_migration_of_an_altered_shard_says_so_and_moves_nothing() {
    let rig = rig();
    let shard = seal(&rig, Protection::Authenticated);
    let position = rig.written_at(0) + 2 * 4096;
    rig.flip(0, position, 0);
    match rig.manager.migrate_shard(&shard, 1) {
        Err(VramError::ShardAltered { segments, .. }) => assert_eq!(segments, [2]),
        other => panic!("{other:?}"),
    }
    assert_eq!((rig.used(0), rig.used(1)), ((LEN as u64).next_multiple_of(256), 0));
    let again = rig.manager.migrate_shard(&shard, 1);
    assert!(matches!(again, Err(VramError::Quarantined { .. })), "{again:?}");
    let start = &weights(LEN)[..64];
    assert!(rig.region(1).windows(64).all(|bytes| bytes != start), "left behind");
}

#[test]
fn a_migration_with_a_fault_at_any_call_ends_on_one_gpu_and_loses_nothing() {
    let met: usize = [false, true].into_iter().map(migrations).sum();
    assert!(met > 60, "only {met} faults were met");
}

/// Migrations over the link, or through the host if the link delivers wrong bytes.
fn migrations(staged: bool) -> usize {
    let ops = [
        (1, Op::PeerCopy),
        (1, Op::QueueWrite),
        (1, Op::Read),
        (1, Op::Fill),
        (0, Op::Read),
        (0, Op::Fill),
        (0, Op::Staging),
        (1, Op::Staging),
    ];
    let faults = ops.map(|(gpu, op)| {
        let error = GpuError::driver(GpuIndex::new(u32::try_from(gpu).unwrap()), 1);
        let mut actions = vec![Action::Fail(error), Action::Panic];
        if op.moves_bytes() && op != Op::Fill {
            actions.extend([Action::DropCopy, Action::FailAfterwards(error)]);
        }
        Faults::of(gpu, op, actions).at(1..=19)
    });
    Row {
        operation: "migrate",
        faults: faults.into(),
        set_up: &|| {
            let rig = rig_with(false, Threads::ONE);
            let shard = seal(&rig, Protection::Encrypted);
            if staged {
                rig.devices[1].add(Op::PeerCopy, When::From(1), Action::DropCopy).unwrap();
            }
            (rig, shard)
        },
        act: &|rig, shard| rig.manager.migrate_shard(shard, 1),
        after: &|rig, shard, outcome, what| {
            let handle = rig.manager.shard(&shard.shard_id).unwrap();
            let gpu = u32::from(matches!(outcome, Outcome::Done(_)));
            assert_eq!(handle.gpu_index, gpu, "{what}");
            match rig.manager.unseal_model(&shard) {
                Ok(bytes) => assert!(bytes == weights(LEN), "{what}"),
                Err(VramError::Quarantined { .. }) => {
                    let altered =
                        matches!(outcome, Outcome::Refused(VramError::ShardAltered { .. }));
                    assert!(altered && what.gpu == 0, "{what}");
                }
                Err(error) => panic!("{what}: {error}"),
            }
            rig.manager.free_shard(&shard).unwrap();
            for gpu in 0..2 {
                assert_eq!(rig.used(gpu), rig.books(gpu).unreturned.get(), "{what}");
            }
        },
        at_least: 1,
    }
    .count()
}
