//! Shards over simulated devices: sealed, converted, moved, freed and repaired.

use cuda_sim::{CallKind, Fault, Sim};
use vram_gpu::Sharing;
use vram_residency::{
    ByteLen, MemoryMode, Protection, ReadBack, RepairOptions, ScrubOptions, ScrubRate, SealRequest,
    SliceSource, Verify, VramError,
};
use vram_tests::reference::{bytes, footprint};

use crate::{BUDGET, LEN, MODES, Machine, SEGMENT, UNKNOWN, content};

/// The device writes what is verified or opened into staging itself: the page-locked buffers through
/// which other reads pass are not even made.
#[test]
fn reads_of_whole_shards_go_straight_into_page_locked_staging() {
    for mode in MODES {
        let machine = Machine::new(mode);
        let shard = machine.seal(Protection::Encrypted);
        let locks = || Sim::faults(machine.ordinals[0]).calls(CallKind::Pin);
        assert!(machine.manager.verify(&shard, Verify::Segments).unwrap().sound);
        let before = locks();
        for _ in 0..4 {
            assert!(machine.manager.verify(&shard, Verify::Segments).unwrap().sound);
        }
        assert_eq!(locks(), before, "staging is kept, and nothing else is locked");
        let blocks = Sim::inspect_pinned(machine.ordinals[0]);
        let bounces = blocks.iter().filter(|block| block.len() == 1 << 20).count();
        assert_eq!(bounces, 0, "{:?}", blocks.iter().map(Vec::len).collect::<Vec<_>>());
        machine.finish();
    }
}

#[test]
fn shards_are_sealed_read_verified_converted_moved_and_freed() {
    for mode in MODES {
        let machine = Machine::new(mode);
        let manager = &machine.manager;
        machine.books_agree();
        let mut shards = Vec::new();
        for len in [0, 1, 256, 257, LEN, 70_000] {
            let data = bytes(len, 3);
            let shard = manager.seal_model("model", 0, &data).unwrap();
            machine.books_agree();
            shards.push((shard, data));
        }
        for (shard, data) in shards {
            let opened = manager.open_resident(&shard).unwrap();
            machine.books_agree();
            assert_eq!(manager.unseal_model(&opened).unwrap(), data);
            let closed = manager.close_resident(&opened).unwrap();
            let middle = data.len() / 2;
            let read = manager.read_shard_at_offset(&closed, middle, data.len() - middle).unwrap();
            assert_eq!(read, data[middle..]);
            assert!(manager.verify(&closed, Verify::Full).unwrap().sound);
            let moved = manager.migrate_shard(&closed, 1).unwrap();
            machine.books_agree();
            assert_eq!(manager.unseal_model(&moved).unwrap(), data);
            let receipt = manager.free_shard(&moved).unwrap();
            let taken = footprint(data.len());
            assert_eq!(receipt.bytes.get(), taken);
            let delta =
                (mode == MemoryMode::Blocks && taken > 0).then(|| i64::try_from(taken).unwrap());
            assert_eq!(receipt.driver_delta, delta, "{mode:?}");
            machine.books_agree();
        }
        assert_eq!((machine.used(0), machine.used(1)), (0, 0));
        machine.finish();
    }
}

#[test]
fn a_shard_that_fills_the_budget_is_converted_where_it_lies() {
    for mode in MODES {
        let machine = Machine::new(mode);
        let data = bytes(usize::try_from(BUDGET).unwrap(), 5);
        let shard = machine.manager.seal_model("model", 0, &data).unwrap();
        let full = machine.manager.seal_model("model", 0, b"more").unwrap_err();
        assert!(matches!(full, VramError::InsufficientVram(_)), "{full}");
        let opened = machine.manager.open_resident(&shard).unwrap();
        machine.books_agree();
        let address = machine.address(0);
        assert!(Sim::inspect(machine.ordinals[0], address, data.len()) == data);
        let closed = machine.manager.close_resident(&opened).unwrap();
        assert!(machine.manager.unseal_and_free(&closed).unwrap() == data);
        machine.books_agree();
        machine.finish();
    }
}

#[test]
fn migration_goes_from_peer_to_peer_where_it_can_and_through_the_host_elsewhere() {
    for mode in MODES {
        for peers in [true, false] {
            let machine = Machine::of(mode, peers, Sharing::Alone);
            let shard = machine.seal(Protection::Encrypted);
            let moved = machine.manager.migrate_shard(&shard, 1).unwrap();
            let copies = Sim::faults(machine.ordinals[1]).calls(CallKind::CopyPeer);
            assert_eq!(copies > 0, peers, "{copies} peer copies");
            assert_eq!(machine.used(0), 0);
            machine.books_agree();
            assert_eq!(machine.manager.unseal_model(&moved).unwrap(), content());
            machine.finish();
        }
    }
}

#[test]
fn a_peer_link_that_lies_is_found_and_gone_around() {
    for mode in MODES {
        for fault in [Fault::Drop, Fault::StopAfter(5000), Fault::FlipBit(77)] {
            let machine = Machine::new(mode);
            let shard = machine.seal(Protection::Encrypted);
            machine.fault(1, CallKind::CopyPeer, fault);
            let moved = machine.manager.migrate_shard(&shard, 1).unwrap();
            assert_eq!(machine.manager.unseal_model(&moved).unwrap(), content());
            machine.books_agree();
            machine.finish();
        }
    }
}

#[test]
fn a_bit_that_flips_at_rest_is_named_and_never_served() {
    for mode in MODES {
        for protection in [Protection::Encrypted, Protection::Authenticated] {
            let machine = Machine::new(mode);
            let shard = machine.seal(protection);
            let at = 3 * SEGMENT + 5;
            let address = machine.address(0) + u64::try_from(at).unwrap();
            Sim::flip_bit(machine.ordinals[0], address, 2);
            let before = machine.manager.read_shard_at_offset(&shard, 0, SEGMENT).unwrap();
            assert_eq!(before, content()[..SEGMENT]);
            match machine.manager.unseal_model(&shard) {
                Err(VramError::ShardAltered { segments, .. }) => assert_eq!(segments, [3]),
                other => panic!("{other:?}"),
            }
            let refused = machine.manager.read_shard_at_offset(&shard, 0, 1).unwrap_err();
            assert!(matches!(refused, VramError::Quarantined { .. }), "{refused}");
            assert!(!machine.manager.verify_shard_integrity(&shard).unwrap());
            machine.manager.free_shard(&shard).unwrap();
            machine.books_agree();
            machine.finish();
        }
    }
}

#[test]
fn a_copy_that_does_less_than_it_says_is_never_resident() {
    for mode in MODES {
        for fault in [Fault::Drop, Fault::StopAfter(2 * 4096), Fault::FlipBit(99)] {
            let machine = Machine::new(mode);
            machine.fault(0, CallKind::CopyIn, fault);
            let request = SealRequest::new("model", 0).read_back(ReadBack::Full);
            match machine.manager.seal(request, &content()) {
                Err(VramError::WriteNotKept { gpu: 0, segments }) => assert!(!segments.is_empty()),
                other => panic!("{fault:?}: {other:?}"),
            }
            assert!(machine.manager.shards().is_empty());
            machine.books_agree();
            assert_eq!(machine.used(0), 0);
            machine.finish();
        }
    }
}

#[test]
fn an_error_that_comes_late_fails_the_seal_that_it_belongs_to() {
    for mode in MODES {
        let machine = Machine::new(mode);
        machine.fault(0, CallKind::CopyIn, Fault::FailLater(UNKNOWN));
        let refused = machine.manager.seal_model("model", 0, &content()).unwrap_err();
        assert!(matches!(refused, VramError::Device { gpu: 0, .. }), "{refused}");
        assert_eq!(machine.used(0), 0);
        machine.books_agree();
        let shard = machine.seal(Protection::Encrypted);
        assert_eq!(machine.manager.unseal_model(&shard).unwrap(), content());
        machine.finish();
    }
}

/// P18.
#[test]
fn freed_device_memory_no_longer_holds_the_bytes() {
    for mode in MODES {
        for protection in [Protection::Encrypted, Protection::Authenticated] {
            let machine = Machine::new(mode);
            let shard = machine.seal(protection);
            let (ordinal, address) = (machine.ordinals[0], machine.address(0));
            let held = Sim::inspect(ordinal, address, LEN);
            assert_eq!(held == content(), protection == Protection::Authenticated);
            assert!(held.iter().filter(|byte| **byte != 0).count() > LEN / 2);
            machine.manager.free_shard(&shard).unwrap();
            assert!(Sim::inspect(ordinal, address, LEN).iter().all(|byte| *byte == 0), "{mode:?}");
            machine.finish();
        }
    }
}

#[test]
fn what_a_scrubber_finds_is_repaired_from_its_source_and_all_accounts_agree() {
    for mode in MODES {
        for protection in [Protection::Encrypted, Protection::Authenticated] {
            let machine = Machine::new(mode);
            let manager = &machine.manager;
            let shard = machine.seal(protection);
            let address = machine.address(0);
            Sim::flip_bit(machine.ordinals[0], address + 4097, 2);
            let rate = ScrubRate::BytesPerSecond(u64::MAX);
            let scrubber = manager.start_scrubber(ScrubOptions::new(rate)).unwrap();
            while scrubber.status().altered == 0 {
                std::thread::yield_now();
            }
            scrubber.stop();
            let read = manager.unseal_model(&shard);
            assert!(matches!(read, Err(VramError::Quarantined { .. })), "{read:?}");

            let data = content();
            let source = SliceSource::new(&data);
            let report = manager.repair_from(&shard, source, RepairOptions::new()).unwrap();
            assert_eq!((report.segments.first(), report.written.get()), (&[1][..], 4096));
            assert_eq!(manager.unseal_model(&shard).unwrap(), data);

            Sim::flip_bit(machine.ordinals[0], address + 1, 2);
            let away = RepairOptions::new().relocate();
            let report = manager.repair_from(&shard, source, away).unwrap();
            assert_eq!(report.set_aside.get(), footprint(LEN));
            assert_eq!(manager.unseal_model(&shard).unwrap(), data);
            let held = Sim::inspect(machine.ordinals[0], address, LEN);
            assert!(held.iter().all(|byte| *byte == 0), "what is never used again was wiped");
            machine.books_agree();
            for accounts in manager.reconcile_all() {
                let accounts = accounts.unwrap();
                assert!(accounts.agrees && accounts.steady, "{accounts}");
                assert_eq!(accounts.driver.others, ByteLen::ZERO, "{accounts}");
            }
            Sim::set_foreign(machine.ordinals[1], 4096);
            let accounts = manager.reconcile(1).unwrap();
            assert!(accounts.agrees && accounts.driver.others.get() == 4096, "{accounts}");
            Sim::set_foreign(machine.ordinals[1], 0);
            machine.finish();
        }
    }
}
