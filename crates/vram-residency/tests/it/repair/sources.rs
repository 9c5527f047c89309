//! Sources that are another content, fail, panic, lie or stop halfway: the shard is as it was.

use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::panic::catch_unwind;

use vram_residency::device::fault::Op;
use vram_residency::{
    CancelToken, ReaderSource, RepairOptions, SealError, SealedShard, SliceSource, Source,
    SourceError, VramError,
};

use super::{damaged, is_whole, quarantined, requests};
use crate::sweep::{Rig, SEGMENT, content};

const LEN: usize = 9 * SEGMENT + 5;
const ALTERED: [u64; 3] = [0, 4, 9];

/// The shard is in quarantine, no byte was written, and its own source repairs it.
fn as_before(rig: &Rig, shard: &SealedShard, region: &[u8], bytes: &[u8], what: &str) {
    assert!(quarantined(rig, shard), "{what}");
    assert_eq!(rig.region(), region, "{what}");
    assert_eq!(rig.device.call_count(Op::Write), 0, "{what}");
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
            let rig = Rig::new(1 << 16);
            let shard = damaged(&rig, request.clone(), &bytes, &ALTERED);
            let region = rig.region();
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
        let rig = Rig::new(1 << 16);
        let shard = damaged(&rig, requests()[0].clone(), &bytes, &ALTERED);
        let region = rig.region();
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
        let rig = Rig::new(1 << 16);
        let shard = damaged(&rig, request, &bytes, &ALTERED);
        let source = ReaderSource::new(&bytes[..], LEN as u64);
        let report = rig.manager.repair_from(&shard, source, RepairOptions::new()).unwrap();
        assert_eq!(report.segments, ALTERED);
        is_whole(&rig, &shard, &bytes, "from a reader");
    }
}

#[test]
fn a_reader_is_refused_if_more_is_altered_than_may_wait_and_a_file_is_read_twice() {
    // One segment more than may be kept.
    let bytes = content(LEN, 3);
    for request in requests() {
        let rig = Rig::new(1 << 16);
        let shard = damaged(&rig, request, &bytes, &[0, 2, 4, 6, 8]);
        let region = rig.region();
        rig.device.clear_log();
        let source = ReaderSource::new(&bytes[..], LEN as u64);
        let refused = rig.manager.repair_from(&shard, source, RepairOptions::new());
        assert!(matches!(refused, Err(VramError::LimitExceeded { .. })), "{refused:?}");
        assert!(quarantined(&rig, &shard));
        assert_eq!((rig.region(), rig.device.call_count(Op::Write)), (region, 0));

        let honest =
            Changing { bytes: &bytes, changes_after: usize::MAX, reads: AtomicUsize::new(0) };
        let report = rig.manager.repair_from(&shard, &honest, RepairOptions::new()).unwrap();
        assert_eq!(report.segments, [0, 2, 4, 6, 8]);
        assert!(honest.reads.load(Ordering::SeqCst) > 5, "it was read again");
        is_whole(&rig, &shard, &bytes, "read twice");
    }
}

/// Gives other bytes after so many reads.
struct Changing<'a> {
    bytes: &'a [u8],
    changes_after: usize,
    reads: AtomicUsize,
}

impl Source for Changing<'_> {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> Result<(), SourceError> {
        let start = usize::try_from(offset).unwrap();
        target.copy_from_slice(&self.bytes[start..start + target.len()]);
        if self.reads.fetch_add(1, Ordering::SeqCst) >= self.changes_after {
            target[0] ^= 1;
        }
        Ok(())
    }
}

#[test]
fn a_source_that_says_something_else_the_second_time_writes_nothing_wrong() {
    let bytes = content(LEN, 4);
    for request in requests() {
        for more in 0..5 {
            let rig = Rig::new(1 << 16);
            let shard = damaged(&rig, request.clone(), &bytes, &[0, 2, 4, 6, 8]);
            // Windows of two segments: five reads for the first pass.
            let source =
                Changing { bytes: &bytes, changes_after: 5 + more, reads: AtomicUsize::new(0) };
            let refused = rig.manager.repair_from(&shard, &source, RepairOptions::new());
            match refused {
                Err(VramError::SourceChanged { segment, .. }) => {
                    assert_eq!(segment, 2 * more as u64);
                }
                other => panic!("{other:?}"),
            }
            assert!(quarantined(&rig, &shard));
            let source = SliceSource::new(&bytes);
            let report = rig.manager.repair_from(&shard, source, RepairOptions::new()).unwrap();
            assert_eq!(report.segments.len(), 5 - more, "what was written before was right");
            is_whole(&rig, &shard, &bytes, "repaired after all");
        }
    }
}

/// Fails, or panics, at one of its reads.
struct Failing<'a> {
    bytes: &'a [u8],
    at: usize,
    panics: bool,
    reads: AtomicUsize,
}

impl Source for Failing<'_> {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> Result<(), SourceError> {
        if self.reads.fetch_add(1, Ordering::SeqCst) == self.at {
            assert!(!self.panics, "the source panics");
            return Err(SourceError::from(std::io::Error::other("the source fails")));
        }
        let start = usize::try_from(offset).unwrap();
        target.copy_from_slice(&self.bytes[start..start + target.len()]);
        Ok(())
    }
}

#[test]
fn a_source_that_fails_panics_or_is_cancelled_halfway_leaves_the_shard_as_it_was() {
    let bytes = content(LEN, 5);
    for request in requests() {
        for at in 0..5 {
            for how in ["fails", "panics", "is cancelled", "panics in its progress"] {
                let rig = Rig::new(1 << 16);
                let shard = damaged(&rig, request.clone(), &bytes, &ALTERED);
                let (region, what) = (rig.region(), format!("it {how} at read {at}"));
                let at_read =
                    if how.contains("its") || how.contains("cancelled") { 99 } else { at };
                let source = Failing {
                    bytes: &bytes,
                    at: at_read,
                    panics: how == "panics",
                    reads: AtomicUsize::new(0),
                };
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
                    // The last window was read already.
                    ("is cancelled", Ok(Ok(_))) if at == 4 => continue,
                    (_, other) => panic!("{what}: {other:?}"),
                }
                if how == "panics in its progress" && at == 4 {
                    // Told of the end when all was written: it is whole, and nobody said so yet.
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
    let rig = Rig::new(1 << 16);
    let shard = damaged(&rig, requests()[1].clone(), &bytes, &ALTERED);
    let region = rig.region();
    let source = ReaderSource::new(&longer[..], LEN as u64);
    let refused = rig.manager.repair_from(&shard, source, RepairOptions::new());
    assert!(matches!(refused, Err(VramError::SourceLength { .. })));
    let source = ReaderSource::new(&bytes[..LEN - 1], LEN as u64);
    let refused = rig.manager.repair_from(&shard, source, RepairOptions::new());
    assert!(matches!(refused, Err(VramError::SourceLength { .. })));
    as_before(&rig, &shard, &region, &bytes, "another length");
}
