//! The source of a repair is foreign code: it may use any shard, also the one that is repaired, and
//! hinders nobody but those who want to change that shard.

use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::sync::{Arc, Barrier, Once, mpsc};

use vram_residency::device::FaultDevice;
use vram_residency::device::fault::{Action, FaultPlan, Hook, Op};
use vram_residency::{
    Class, DeviceOffset, EventLog, ReaderSource, RepairOptions, SealedShard, SegmentSize,
    SliceSource, Source, SourceError, Threads, VramError, VramManager,
};
use vram_test_rigs::{ActingReader, ActingSource, Rig, SEGMENT, begin, content, devices, in_time};

use super::{damaged, is_whole, requests};

const LEN: usize = 9 * SEGMENT + 5;

/// Reads another shard when it is asked.
struct Replica {
    manager: Arc<VramManager>,
    other: SealedShard,
    met: Arc<Barrier>,
    once: Once,
}

impl Source for Replica {
    fn len(&self) -> u64 {
        self.other.plaintext_len
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> Result<(), SourceError> {
        self.once.call_once(|| {
            self.met.wait();
        });
        let read = self.manager.read_into(&self.other, offset, target);
        read.map_err(|error| SourceError::io("replica", std::io::Error::other(error.to_string())))
    }
}

/// each waited at the other's gate for ever.
#[test]
fn two_repairs_from_each_others_replica_end() {
    let devices = devices(&[1 << 20, 1 << 20], &FaultPlan::new(1));
    let mut builder = VramManager::builder().segment_size(SegmentSize::MIN).threads(Threads::ONE);
    for device in &devices {
        builder = builder.device(Arc::<FaultDevice>::clone(device));
    }
    let manager = Arc::new(builder.build().unwrap());
    let bytes = content(3 * SEGMENT, 5);
    let shards = [0, 1].map(|gpu| manager.seal_model("replica", gpu, &bytes).unwrap());
    // Small shards lie at the high end.
    for device in &devices {
        let at = (1 << 20) - 3 * SEGMENT as u64 + 10;
        device.flip_bit_at(None, DeviceOffset::new(at), 1).unwrap();
    }
    let met = Arc::new(Barrier::new(2));
    let [a, b] = shards;
    let repairs = [(a.clone(), b.clone()), (b, a)].map(|(mine, other)| {
        let (manager, met) = (Arc::clone(&manager), Arc::clone(&met));
        begin(move || {
            let replica = Replica { manager: Arc::clone(&manager), other, met, once: Once::new() };
            manager.repair_from(&mine, replica, RepairOptions::new())
        })
    });
    for repair in repairs {
        // Both replicas are altered, so neither repairs the other.
        let refused = in_time("a repair", move || repair.recv().unwrap());
        assert!(matches!(refused, Err(VramError::Source(_))), "{refused:?}");
    }
}

#[test]
fn a_source_is_never_called_by_an_exclusive_user_of_the_shard() {
    let bytes = content(LEN, 1);
    let all: Vec<u64> = (0..10).collect();
    for request in requests() {
        for relocate in [false, true] {
            let rig = Rig::new(&[1 << 17]);
            let shard = damaged(&rig, request.clone(), &bytes, &all);
            let reads = AtomicUsize::new(0);
            let source = ActingSource::new(&bytes, |_offset, _target: &mut [u8]| {
                reads.fetch_add(1, Ordering::Relaxed);
                let refused = rig.manager.unseal_model(&shard);
                assert!(matches!(refused, Err(VramError::Quarantined { .. })), "{refused:?}");
                Ok(())
            });
            let options = RepairOptions::new();
            let options = if relocate { options.relocate() } else { options };
            let report = rig.manager.repair_from(&shard, &source, options).unwrap();
            assert_eq!((report.segments.first(), report.written.get()), (&all[..], LEN as u64));
            // Windows of two segments, and six segments that found no room.
            assert_eq!(reads.into_inner(), 5 + 6);
            is_whole(&rig, &shard, &bytes, "in rounds");
        }
    }
}

#[test]
fn two_repairs_of_one_shard_write_it_once() {
    let bytes = content(LEN, 2);
    for request in requests() {
        let rig = Arc::new(Rig::new(&[1 << 16]));
        let shard = damaged(&rig, request, &bytes, &[0, 4, 9]);
        rig.devices[0].clear_log();
        // Both have read the first part of their source before either goes on.
        let met = Arc::new(Barrier::new(2));
        let repairs = [0, 1].map(|_| {
            let (rig, shard, bytes) = (Arc::clone(&rig), shard.clone(), bytes.clone());
            let met = Arc::clone(&met);
            begin(move || {
                let once = Once::new();
                let source = ActingSource::new(bytes, |_offset, _target: &mut [u8]| {
                    once.call_once(|| {
                        met.wait();
                    });
                    Ok(())
                });
                rig.manager.repair_from(&shard, &source, RepairOptions::new())
            })
        });
        let mut written = repairs.map(|repair| {
            let report = in_time("a repair", move || repair.recv().unwrap()).unwrap();
            report.segments.count()
        });
        written.sort_unstable();
        assert_eq!(written, [0, 3]);
        assert_eq!(rig.devices[0].call_count(Op::Write), 3);
        is_whole(&rig, &shard, &bytes, "written once");
    }
}

#[test]
fn a_shard_that_changed_while_its_source_was_read_is_surveyed_again() {
    let bytes = content(LEN, 3);
    for request in requests() {
        let rig = Rig::new(&[1 << 16]);
        let shard = damaged(&rig, request, &bytes, &[0, 4]);
        let start = rig.written_at(0);
        let alter_one_more = || {
            // One more segment is altered, and found.
            rig.flip(0, start + 7 * SEGMENT as u64, 2);
            assert!(!rig.manager.verify_shard_integrity(&shard).unwrap());
        };
        let once = Once::new();
        let source = ActingSource::new(&bytes, |_offset, _target: &mut [u8]| {
            once.call_once(alter_one_more);
            Ok(())
        });
        let report = rig.manager.repair_from(&shard, &source, RepairOptions::new()).unwrap();
        assert_eq!(report.segments, [0, 4, 7]);
        is_whole(&rig, &shard, &bytes, "all three");

        // A reader that can be read once cannot be asked again: the caller can.
        rig.flip(0, start, 3);
        let mut first = true;
        let reader = ActingReader::new(&bytes, || {
            if core::mem::take(&mut first) {
                rig.flip(0, start + 5 * SEGMENT as u64, 2);
                assert!(!rig.manager.verify_shard_integrity(&shard).unwrap());
            }
        });
        let source = ReaderSource::new(reader, LEN as u64);
        let refused = rig.manager.repair_from(&shard, source, RepairOptions::new()).unwrap_err();
        assert!(matches!(refused, VramError::InUse { leases: 0, .. }), "{refused}");
        assert_eq!(refused.class(), Class::Retry);
        let source = ReaderSource::new(&bytes[..], LEN as u64);
        let report = rig.manager.repair_from(&shard, source, RepairOptions::new()).unwrap();
        assert_eq!(report.segments, [0, 5]);
        is_whole(&rig, &shard, &bytes, "the second time");
    }
}

/// The event of a repair comes before that of any call that waited for it.
#[test]
fn a_shard_that_waits_to_be_freed_is_repaired_first() {
    let bytes = content(LEN, 4);
    let log = EventLog::new(100);
    let rig = Arc::new(Rig::with(&[1 << 16], |builder| builder.event_sink(log.clone())));
    let shard = damaged(&rig, requests()[1].clone(), &bytes, &[2]);
    let (free, freed) = mpsc::channel();
    let (freeing, waits) = (Arc::clone(&rig), shard.clone());
    // Called while the repair writes.
    let hook = Hook::new(move || {
        let (freeing, waits) = (Arc::clone(&freeing), waits.clone());
        free.send(begin(move || freeing.manager.free_shard(&waits).map(drop))).unwrap();
    });
    rig.devices[0].next(Op::Write, Action::Run(hook)).unwrap();
    let source = SliceSource::new(&bytes);
    rig.manager.repair_from(&shard, source, RepairOptions::new()).unwrap();
    in_time("the call that frees", move || freed.recv().unwrap().recv().unwrap()).unwrap();
    assert!(rig.manager.flush_events(Duration::from_secs(20)));
    let codes: Vec<_> = log.events().iter().map(|event| event.kind.name()).collect();
    let at = |code: &str| codes.iter().position(|one| *one == code).unwrap();
    assert!(at("quarantined") < at("repaired") && at("repaired") < at("freed"), "{codes:?}");
}
