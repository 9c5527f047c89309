//! Sealing, reading, verifying and freeing one shard, with one fault at every call of the device.

use vram_residency::{Protection, ReadBack, SealRequest, SealedShard, Verify, VramError};

use vram_test_rigs::{Fault, Faults, Outcome, Rig, Row, SEGMENT, content};

const LEN: usize = 5 * SEGMENT + 77;
const TOTAL: usize = 16 * SEGMENT;

const BOTH: [Protection; 2] = [Protection::Encrypted, Protection::Authenticated];

fn with_shard(protection: Protection) -> (Rig, SealedShard) {
    let rig = Rig::new(&[TOTAL]);
    let request = SealRequest::new("model", 0).protection(protection);
    let shard = rig.manager.seal(request, &content(LEN, 1)).unwrap();
    (rig, shard)
}

/// The shard is resident and unaltered, or in quarantine because it was found altered. It can be
/// freed, and then everything is as at the start.
fn still_resident(rig: &Rig, shard: &SealedShard, may_be_quarantined: bool, what: &Fault) {
    assert_eq!(rig.manager.shards().len(), 1, "{what}");
    match rig.manager.unseal_model(shard) {
        Ok(bytes) => assert!(bytes == content(LEN, 1), "other bytes: {what}"),
        Err(VramError::Quarantined { .. }) if may_be_quarantined => {}
        Err(error) => panic!("{what}: {error}"),
    }
    rig.settle(true);
}

#[test]
pub(super) fn a_seal_that_fails_anywhere_leaves_nothing_and_one_that_does_not_is_right() {
    for protection in BOTH {
        for read_back in [ReadBack::Default, ReadBack::Full, ReadBack::None] {
            Row {
                operation: "seal",
                faults: Faults::every(0),
                set_up: &|| (Rig::new(&[TOTAL]), ()),
                act: &|rig, ()| {
                    let request =
                        SealRequest::new("model", 0).protection(protection).read_back(read_back);
                    rig.manager.seal(request, &content(LEN, 1))
                },
                after: &|rig, (), outcome, what| {
                    let Outcome::Done(shard) = outcome else {
                        assert!(rig.manager.shards().is_empty(), "{what}");
                        return rig.settle(true);
                    };
                    // A damaged copy is detected at the read-back, or when the bytes are used.
                    let checked = read_back == ReadBack::Full
                        || (read_back, protection)
                            == (ReadBack::Default, Protection::Authenticated);
                    match rig.manager.unseal_model(&shard) {
                        Ok(bytes) => assert!(bytes == content(LEN, 1), "other bytes: {what}"),
                        Err(VramError::ShardAltered { segments, .. }) if !checked => {
                            assert_eq!(segments.count(), 1, "{what}");
                        }
                        Err(error) => panic!("{what}: {error}"),
                    }
                    rig.settle(true);
                },
                at_least: 21,
            }
            .sweep();
        }
    }
}

#[test]
pub(super) fn an_unseal_that_fails_anywhere_changes_nothing_and_gives_no_byte() {
    for protection in BOTH {
        Row {
            operation: "unseal",
            faults: Faults::every(0),
            set_up: &|| with_shard(protection),
            act: &|rig, shard| rig.manager.unseal_model(shard),
            after: &|rig, shard, outcome, what| {
                let mut altered = false;
                match outcome {
                    Outcome::Done(bytes) => assert!(bytes == content(LEN, 1), "{what}"),
                    Outcome::Refused(VramError::ShardAltered { .. }) => altered = true,
                    Outcome::Refused(_) | Outcome::Panicked => {}
                }
                still_resident(rig, &shard, altered, what);
            },
            at_least: 11,
        }
        .sweep();
    }
}

#[test]
pub(super) fn a_partial_read_that_fails_anywhere_leaves_the_target_as_it_was_or_zero() {
    Row {
        operation: "read a part",
        faults: Faults::every(0),
        set_up: &|| with_shard(Protection::Encrypted),
        act: &|rig, shard| {
            let mut target = vec![0xEE; 2 * SEGMENT];
            let read = rig.manager.read_into(shard, 1000, &mut target);
            let wanted = &content(LEN, 1)[1000..1000 + 2 * SEGMENT];
            match &read {
                Ok(()) => assert!(target == wanted),
                Err(_) => assert!(
                    target.iter().all(|byte| *byte == 0) || target.iter().all(|byte| *byte == 0xEE)
                ),
            }
            read
        },
        after: &|rig, shard, outcome, what| {
            let altered = matches!(outcome, Outcome::Refused(VramError::ShardAltered { .. }));
            still_resident(rig, &shard, altered, what);
        },
        at_least: 6,
    }
    .sweep();
}

#[test]
pub(super) fn a_verification_that_fails_anywhere_changes_nothing_but_a_quarantine() {
    for level in [Verify::Full, Verify::Segments, Verify::Sample { segments: 1, seed: 3 }] {
        Row {
            operation: "verify",
            faults: Faults::every(0),
            set_up: &|| with_shard(Protection::Encrypted),
            act: &|rig, shard| rig.manager.verify(shard, level),
            after: &|rig, shard, outcome, what| {
                let altered = match outcome {
                    Outcome::Done(verdict) => {
                        assert_eq!(verdict.sound, verdict.altered.is_empty(), "{what}");
                        !verdict.sound
                    }
                    Outcome::Refused(VramError::Device { .. } | VramError::HostMemory { .. })
                    | Outcome::Panicked => false,
                    Outcome::Refused(error) => panic!("{what}: {error}"),
                };
                still_resident(rig, &shard, altered, what);
            },
            at_least: 6,
        }
        .sweep();
    }
}

#[test]
pub(super) fn a_free_that_the_device_refuses_keeps_the_bytes_counted_until_it_works_and_the_shard_gone()
 {
    Row {
        operation: "free",
        faults: Faults::every(0),
        set_up: &|| with_shard(Protection::Authenticated),
        act: &|rig, shard| rig.manager.free_shard(shard),
        after: &|rig, shard, outcome, what| {
            assert!(rig.manager.shards().is_empty(), "{what}");
            let again = rig.manager.free_shard(&shard);
            assert!(matches!(again, Err(VramError::ShardFreed { .. })), "{what}");
            let unreturned = rig.manager.capacity(0).unwrap().unreturned;
            match outcome {
                Outcome::Done(receipt) => {
                    assert!(receipt.wiped && unreturned.is_zero(), "{what}");
                }
                Outcome::Refused(VramError::NotReturned { bytes, .. }) => {
                    assert_eq!((bytes, bytes.get()), (unreturned, rig.used(0)), "{what}");
                    assert!(rig.manager.report().gpus[0].unreturned.is_some(), "{what}");
                }
                Outcome::Refused(error) => panic!("{what}: {error}"),
                Outcome::Panicked => panic!("{what}: the panic of the device came out"),
            }
            // The device works again: the next call that looks for room finds all of it.
            rig.manager.refresh(0).unwrap();
            let books = rig.manager.capacity(0).unwrap();
            assert!(books.unreturned.is_zero() && books.free == books.total, "{what}");
            let rest = usize::try_from(books.largest_hole.get()).unwrap();
            let shard = rig.manager.seal_model("rest", 0, &content(rest, 2)).unwrap();
            assert!(rig.manager.unseal_and_free(&shard).unwrap() == content(rest, 2), "{what}");
            assert_eq!(rig.used(0), 0, "{what}");
        },
        at_least: 3,
    }
    .sweep();
}

#[test]
pub(super) fn unseal_and_free_returns_the_bytes_even_if_the_memory_cannot_be_wiped() {
    Row {
        operation: "unseal and free",
        faults: Faults::every(0),
        set_up: &|| with_shard(Protection::Encrypted),
        act: &|rig, shard| rig.manager.unseal_and_free(shard),
        after: &|rig, shard, outcome, what| match outcome {
            Outcome::Done(bytes) => {
                assert!(bytes == content(LEN, 1), "{what}");
                assert!(rig.manager.shards().is_empty(), "{what}");
                rig.settle(true);
            }
            Outcome::Refused(error) => {
                let altered = matches!(error, VramError::ShardAltered { .. });
                still_resident(rig, &shard, altered, what);
            }
            Outcome::Panicked => still_resident(rig, &shard, false, what),
        },
        at_least: 11,
    }
    .sweep();
}
