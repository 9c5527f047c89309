//! Rows of the table: bytes from sources or from whole models, and shards that are sealed again.

use core::slice::from_ref;

use vram_residency::device::fault::Op;
use vram_residency::{
    ByteLen, Protection, ReaderSource, SealOptions, SealRequest, SealedShard, SivScope, Verify,
    VramError,
};
use vram_test_rigs::{Fault, Faults, Outcome, Rig, Row, SEGMENT, content};

use crate::moves::keys;
use crate::seal::models::{bytes_of, plan, request, sources};
use crate::seal::transitions::sealed;

/// P15: after any failure nothing is resident and everything was returned.
#[test]
pub(super) fn a_fault_at_any_call_while_sealing_from_a_source_leaves_nothing() {
    let bytes = content(5 * SEGMENT + 9, 8);
    for protection in [Protection::Encrypted, Protection::Authenticated] {
        Row {
            operation: "seal from a source",
            faults: Faults::every(0),
            set_up: &|| (Rig::new(&[1 << 16]), ()),
            act: &|rig, ()| {
                let reader = ReaderSource::new(&bytes[..], ByteLen::from_usize(bytes.len()).get());
                rig.manager.seal_from(
                    SealRequest::new("model", 0).protection(protection),
                    reader,
                    SealOptions::new(),
                )
            },
            after: &|rig, (), outcome, what| {
                match outcome {
                    // Damage in the middle of an Encrypted shard, outside every sample: detected on
                    // read.
                    Outcome::Done(shard) => {
                        assert_eq!(rig.manager.shards(), from_ref(&shard), "{what}");
                        match rig.manager.unseal_model(&shard) {
                            Ok(plaintext) => assert_eq!(plaintext, bytes, "{what}"),
                            Err(VramError::ShardAltered { .. }) => {
                                assert_eq!(protection, Protection::Encrypted, "{what}");
                            }
                            Err(other) => panic!("{what}: {other}"),
                        }
                    }
                    Outcome::Refused(_) | Outcome::Panicked => {
                        assert!(rig.manager.shards().is_empty(), "{what}");
                    }
                }
                rig.settle(true);
            },
            at_least: 16,
        }
        .sweep();
    }
}

/// P15: after any failure no piece is resident, and a model that existed before is unchanged.
#[test]
pub(super) fn a_fault_at_any_call_of_an_admission_leaves_nothing() {
    let (files, plan) = plan();
    let before = content(2 * SEGMENT, 4);
    Row {
        operation: "admit",
        faults: Faults::every(0),
        set_up: &|| {
            let rig = Rig::new(&[1 << 17]);
            let other = rig.manager.seal(SealRequest::new("other", 0), &before).unwrap();
            (rig, other)
        },
        act: &|rig, _| rig.manager.admit(request(), &plan, &sources(&files)),
        after: &|rig, other, outcome, what| {
            assert_eq!(rig.manager.unseal_model(&other).unwrap(), before, "{what}");
            match outcome {
                Outcome::Done(model) => {
                    for made in &model.pieces {
                        match rig.manager.unseal_model(&made.shard) {
                            Ok(read) => assert_eq!(read, bytes_of(&files, &made.piece), "{what}"),
                            // Damage outside every sample.
                            Err(VramError::ShardAltered { .. }) => {}
                            Err(error) => panic!("{what}: {error}"),
                        }
                    }
                }
                Outcome::Refused(_) | Outcome::Panicked => {
                    assert_eq!(rig.manager.shards(), [other], "{what}");
                }
            }
            rig.settle(true);
        },
        at_least: 41,
    }
    .sweep();
}

/// P15: after any failure the shard is as before or as requested, and the error says which.
#[test]
pub(super) fn a_fault_at_any_call_of_a_transition_leaves_the_old_shard_or_the_new_one() {
    let len = 5 * SEGMENT + 9;
    let bytes = content(len, 6);
    let totals = [2 * len.next_multiple_of(256), len.next_multiple_of(256)];
    for scope in [SivScope::Shard, SivScope::Segment] {
        for first_open in [false, true] {
            for total in totals {
                Row {
                    operation: "open or close",
                    faults: Faults::every(0),
                    set_up: &|| {
                        let rig = Rig::new(&[total]);
                        let shard = sealed(&rig, scope, first_open, &bytes);
                        (rig, shard)
                    },
                    act: &|rig, shard| {
                        if first_open {
                            rig.manager.close_resident(shard)
                        } else {
                            rig.manager.open_resident(shard)
                        }
                    },
                    after: &|rig, before, outcome, what| {
                        old_or_new(rig, &before, outcome, &bytes, what);
                    },
                    at_least: 31,
                }
                .sweep();
            }
        }
    }
}

fn old_or_new(
    rig: &Rig,
    before: &SealedShard,
    outcome: Outcome<SealedShard>,
    bytes: &[u8],
    what: &Fault,
) {
    let current = match outcome {
        Outcome::Done(after) => {
            assert_ne!(after.protection, before.protection, "{what}");
            after
        }
        // Damage in a read looks like altered memory: refused, and closed to readers.
        Outcome::Refused(VramError::ShardAltered { segments, .. }) => {
            assert!(matches!(what.op, Op::Read | Op::QueueRead), "{what}");
            assert!(!segments.is_empty(), "{what}");
            let refused = rig.manager.unseal_model(before);
            assert!(matches!(refused, Err(VramError::Quarantined { .. })), "{what}: {refused:?}");
            rig.settle(true);
            return;
        }
        Outcome::Refused(_) | Outcome::Panicked => before.clone(),
    };
    assert_eq!(rig.manager.shards(), from_ref(&current), "{what}");
    assert_eq!(rig.manager.unseal_model(&current).unwrap(), bytes, "{what}");
    assert!(rig.manager.verify(&current, Verify::Full).unwrap().sound, "{what}");
    let stale = if current == *before { None } else { Some(before) };
    if let Some(stale) = stale {
        assert!(matches!(rig.manager.unseal_model(stale), Err(VramError::StaleHandle { .. })));
    }
    rig.settle(true);
}

/// P15: every call of the device fails once while a shard is sealed under another key, beside and
/// in place.
#[test]
pub(super) fn a_reseal_that_fails_leaves_the_shard_under_its_key() {
    let len = 3 * SEGMENT + 9;
    let bytes = content(len, 3);
    for request in keys::requests() {
        for which in 0..2 {
            Row {
                operation: "reseal",
                faults: Faults::every(0),
                set_up: &|| {
                    let [beside, in_place] = keys::rigs(len);
                    let rig = if which == 0 { beside } else { in_place };
                    rig.manager.add_key(keys::other()).unwrap();
                    let shard = rig.manager.seal(request.clone(), &bytes).unwrap();
                    (rig, shard)
                },
                act: &|rig, shard| rig.manager.reseal_shard(shard, &keys::other().id()),
                after: &|rig, shard, outcome, what| {
                    match outcome {
                        Outcome::Done(resealed) => {
                            assert_eq!(rig.manager.unseal_model(&resealed).unwrap(), bytes);
                        }
                        Outcome::Refused(VramError::ShardAltered { .. }) => {}
                        Outcome::Refused(_) | Outcome::Panicked => {
                            assert_eq!(rig.manager.unseal_model(&shard).unwrap(), bytes, "{what}");
                        }
                    }
                    rig.settle(what.op != Op::Fill);
                },
                at_least: 11,
            }
            .sweep();
        }
    }
}
