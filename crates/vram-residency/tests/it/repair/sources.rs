//! Sources with other content, and sources that fail, panic, change or stop halfway: the shard is
//! unchanged.

use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::panic::catch_unwind;

use vram_residency::device::fault::Op;
use vram_residency::{
    CancelToken, ReaderSource, RepairOptions, SealError, SealedShard, SliceSource, Source,
    VramError,
};

use super::{damaged, is_whole, quarantined, requests};
use vram_test_rigs::{ActingSource, Rig, SEGMENT, content};

const LEN: usize = 9 * SEGMENT + 5;
const ALTERED: [u64; 3] = [0, 4, 9];

/// Checks that the shard is in quarantine, that no byte was written, and that its own source
/// repairs it.
fn as_before(rig: &Rig, shard: &SealedShard, region: &[u8], bytes: &[u8], what: &str) {
    assert!(quarantined(rig, shard), "{what}");
    assert_eq!(rig.region(0), region, "{what}");
    assert_eq!(rig.devices[0].call_count(Op::Write), 0, "{what}");
    let source = SliceSource::new(bytes);
    let report = rig.manager.repair_from(shard, source, RepairOptions::new()).unwrap();
    assert_eq!(report.segments, ALTERED, "{what}");
    is_whole(rig, shard, bytes, what);
}

#[test]
fn a_source_with_one_other_byte_is_refused_wherever_the_byte_is() {
    let bytes = content(LEN, 1);
    for request in requests() {
        for at in [0, SEGMENT, 5 * SEGMENT - 1, LEN - 1] {
            let rig = Rig::new(&[1 << 16]);
            let shard = damaged(&rig, request.clone(), &bytes, &ALTERED);
            let region = rig.region(0);
            let mut wrong = bytes.clone();
            wrong[at] ^= 0x10;
            for sequential in [false, true] {
                let refused = if sequential {
                    let source = ReaderSource::new(&wrong[..], LEN as u64);
                    rig.manager.repair_from(&shard, source, RepairOptions::new())
                } else {
                    rig.manager.repair_from(&shard, SliceSource::new(&wrong), RepairOptions::new())
                };
                match refused {
                    Err(VramError::DigestMismatch { expected, found, .. }) => {
                        let digest = rig.manager.content_digest(&shard).unwrap();
                        assert!(*expected == digest && *found != digest);
                    }
                    other => panic!("{other:?}"),
                }
            }
            as_before(&rig, &shard, &region, &bytes, &format!("byte {at}"));
        }
    }
}

#[test]
fn a_source_of_another_length_is_refused_before_it_is_read() {
    let bytes = content(LEN, 1);
    for other in [0, 1, LEN - 1, LEN + 1] {
        let rig = Rig::new(&[1 << 16]);
        let shard = damaged(&rig, requests()[0].clone(), &bytes, &ALTERED);
        let region = rig.region(0);
        let source = SliceSource::new(&vec![0; other]).as_slice().unwrap().to_vec();
        let refused =
            rig.manager.repair_from(&shard, SliceSource::new(&source), RepairOptions::new());
        assert!(matches!(refused, Err(VramError::Seal(SealError::WrongLength { .. }))));
        as_before(&rig, &shard, &region, &bytes, &format!("{other} bytes"));
    }
}

#[test]
fn a_reader_that_can_be_read_once_repairs_in_either_scope() {
    let bytes = content(LEN, 2);
    for request in requests() {
        let rig = Rig::new(&[1 << 16]);
        let shard = damaged(&rig, request, &bytes, &ALTERED);
        let source = ReaderSource::new(&bytes[..], LEN as u64);
        let report = rig.manager.repair_from(&shard, source, RepairOptions::new()).unwrap();
        assert_eq!(report.segments, ALTERED);
        is_whole(&rig, &shard, &bytes, "from a reader");
    }
}

#[test]
fn a_reader_is_refused_if_more_is_altered_than_may_wait_and_a_file_is_read_twice() {
    // One segment more than may be altered at most.
    let bytes = content(LEN, 3);
    for request in requests() {
        let rig = Rig::new(&[1 << 16]);
        let shard = damaged(&rig, request, &bytes, &[0, 2, 4, 6, 8]);
        let region = rig.region(0);
        rig.devices[0].clear_log();
        let source = ReaderSource::new(&bytes[..], LEN as u64);
        let refused = rig.manager.repair_from(&shard, source, RepairOptions::new());
        assert!(matches!(refused, Err(VramError::LimitExceeded { .. })), "{refused:?}");
        assert!(quarantined(&rig, &shard));
        assert_eq!((rig.region(0), rig.devices[0].call_count(Op::Write)), (region, 0));

        let reads = AtomicUsize::new(0);
        let honest = changing(&bytes, usize::MAX, &reads);
        let report = rig.manager.repair_from(&shard, &honest, RepairOptions::new()).unwrap();
        assert_eq!(report.segments, [0, 2, 4, 6, 8]);
        assert!(reads.load(Ordering::SeqCst) > 5, "it was read again");
        is_whole(&rig, &shard, &bytes, "read twice");
    }
}

/// Returns other bytes after this many reads.
fn changing<'a>(bytes: &'a [u8], after: usize, reads: &'a AtomicUsize) -> impl Source + 'a {
    ActingSource::new(bytes, move |_offset, target: &mut [u8]| {
        if reads.fetch_add(1, Ordering::SeqCst) >= after {
            target[0] ^= 1;
        }
        Ok(())
    })
}

#[test]
fn a_source_that_says_something_else_the_second_time_writes_nothing_wrong() {
    let bytes = content(LEN, 4);
    let all: Vec<u64> = (0..10).collect();
    for request in requests() {
        for more in 0..6 {
            let rig = Rig::new(&[1 << 16]);
            let shard = damaged(&rig, request.clone(), &bytes, &all);
            // Windows of two segments: five reads for the first pass. Four segments may wait at a
            // time, so segments 4 to 9 are read again, each by itself.
            let reads = AtomicUsize::new(0);
            let source = changing(&bytes, 5 + more, &reads);
            let refused = rig.manager.repair_from(&shard, &source, RepairOptions::new());
            match refused {
                Err(VramError::SourceChanged { segment, .. }) => {
                    assert_eq!(segment, 4 + more as u64);
                }
                other => panic!("{other:?}"),
            }
            assert!(quarantined(&rig, &shard));
            let source = SliceSource::new(&bytes);
            let report = rig.manager.repair_from(&shard, source, RepairOptions::new()).unwrap();
            let written = if more < 4 { 4 } else { 8 };
            assert_eq!(report.segments, all[written..], "what was written before was right");
            is_whole(&rig, &shard, &bytes, "repaired after all");
        }
    }
}

#[test]
fn a_source_that_fails_panics_or_is_cancelled_halfway_leaves_the_shard_as_it_was() {
    let bytes = content(LEN, 5);
    for request in requests() {
        for at in 0..5 {
            for how in ["fails", "panics", "is cancelled", "panics in its progress"] {
                let rig = Rig::new(&[1 << 16]);
                let shard = damaged(&rig, request.clone(), &bytes, &ALTERED);
                let (region, what) = (rig.region(0), format!("it {how} at read {at}"));
                let at_read =
                    if how.contains("its") || how.contains("cancelled") { 99 } else { at };
                let reads = AtomicUsize::new(0);
                let source = ActingSource::new(&bytes, |_offset, _target: &mut [u8]| {
                    if reads.fetch_add(1, Ordering::SeqCst) == at_read {
                        assert!(how != "panics", "the source panics");
                        return Err(std::io::Error::other("the source fails").into());
                    }
                    Ok(())
                });
                let token = CancelToken::new();
                let mut calls = 0;
                let options = RepairOptions::new().cancel(token.clone()).progress(|_| {
                    calls += 1;
                    if calls > at {
                        match how {
                            "is cancelled" => token.cancel(),
                            "panics in its progress" => panic!("the callback panics"),
                            _ => {}
                        }
                    }
                });
                let outcome = catch_unwind(AssertUnwindSafe(|| {
                    rig.manager.repair_from(&shard, &source, options)
                }));
                match (how, outcome) {
                    ("fails", Ok(Err(VramError::Source(_))))
                    | ("is cancelled", Ok(Err(VramError::Cancelled { .. })))
                    | ("panics" | "panics in its progress", Err(_)) => {}
                    // The last window was already read.
                    ("is cancelled", Ok(Ok(_))) if at == 4 => continue,
                    (_, other) => panic!("{what}: {other:?}"),
                }
                if how == "panics in its progress" && at == 4 {
                    // The callback reports the end after everything was written: the bytes are
                    // repaired, but the shard is not yet reopened.
                    assert!(quarantined(&rig, &shard), "{what}");
                    continue;
                }
                as_before(&rig, &shard, &region, &bytes, &what);
            }
        }
    }
}

#[test]
fn a_reader_that_goes_on_after_its_length_is_refused() {
    let bytes = content(LEN, 6);
    let mut longer = bytes.clone();
    longer.push(1);
    let rig = Rig::new(&[1 << 16]);
    let shard = damaged(&rig, requests()[1].clone(), &bytes, &ALTERED);
    let region = rig.region(0);
    let source = ReaderSource::new(&longer[..], LEN as u64);
    let refused = rig.manager.repair_from(&shard, source, RepairOptions::new());
    assert!(matches!(refused, Err(VramError::SourceLength { .. })));
    let source = ReaderSource::new(&bytes[..LEN - 1], LEN as u64);
    let refused = rig.manager.repair_from(&shard, source, RepairOptions::new());
    assert!(matches!(refused, Err(VramError::SourceLength { .. })));
    as_before(&rig, &shard, &region, &bytes, "another length");
}
