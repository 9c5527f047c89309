//! One fault at every call: runs an operation again and again, each time with another call of the
//! device failing in another way, until it is called no more often.

use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;

use vram_alloc::DeviceOffset;
use vram_residency::device::fault::{Action, FaultPlan, Op, When};
use vram_residency::device::{Device, FaultDevice, GpuError, HostDevice};
use vram_residency::{
    ByteLen, GpuIndex, Limits, SealKey, SegmentSize, Threads, VramError, VramManager,
};

/// Bytes of a segment everywhere in these tests.
pub(crate) const SEGMENT: usize = 4096;

/// A manager over one device that fails on command. Windows are two segments long, and one thread
/// works, so that the n-th call is the same in every run.
pub(crate) struct Rig {
    pub(crate) manager: VramManager,
    pub(crate) device: Arc<FaultDevice>,
    /// What the region held before anything was written.
    untouched: Vec<u8>,
}

impl Rig {
    pub(crate) fn new(total: usize) -> Self {
        let total = ByteLen::from_usize(total);
        let host = HostDevice::new(GpuIndex::new(0), total).unwrap();
        let device = FaultDevice::new(Arc::new(host), FaultPlan::new(1));
        let manager = VramManager::builder()
            .device(Arc::clone(&device) as Arc<dyn Device>)
            .key(SealKey::from_bytes([7; 32]))
            .segment_size(SegmentSize::MIN)
            .limits(Limits::default().staging_bytes(ByteLen::from_usize(4 * SEGMENT)))
            .threads(Threads::ONE)
            .build()
            .unwrap();
        let mut rig = Self { manager, device, untouched: Vec::new() };
        rig.untouched = rig.region();
        rig
    }

    /// All device bytes of the manager's region.
    pub(crate) fn region(&self) -> Vec<u8> {
        let Some((number, len)) = self.device.live().first().copied() else { return Vec::new() };
        self.device.inspect(Some(number), DeviceOffset::START, len).unwrap()
    }

    /// Where the first shard lies: the start of the first granule that is neither as it was in the
    /// beginning nor wiped.
    pub(crate) fn written_at(&self) -> u64 {
        let region = self.region();
        let granules = region.chunks(256).zip(self.untouched.chunks(256));
        let first = granules.map(|(now, then)| now != then && now.iter().any(|byte| *byte != 0));
        let at = first.into_iter().position(|written| written).unwrap();
        u64::try_from(at * 256).unwrap()
    }

    pub(crate) fn used(&self) -> u64 {
        let capacity = self.manager.capacity(0).unwrap();
        assert_eq!(capacity.reserved, ByteLen::ZERO, "a promise was forgotten");
        let sum = capacity.used.get() + capacity.reserved.get() + capacity.free.get();
        assert_eq!(sum, capacity.total.get());
        capacity.used.get()
    }

    /// Frees everything and looks whether the books, and the device, are as in the beginning.
    pub(crate) fn settle(&self, look_at_bytes: bool) {
        for shard in self.manager.shards() {
            self.manager.free_shard(&shard).unwrap();
        }
        let capacity = self.manager.capacity(0).unwrap();
        assert_eq!(self.used(), capacity.unreturned.get(), "bytes were lost");
        if look_at_bytes && capacity.unreturned.is_zero() {
            let left = self.region();
            let kept =
                left.iter().zip(&self.untouched).position(|(now, then)| *now != 0 && now != then);
            assert_eq!(kept, None, "bytes of a shard were left readable");
            // And all of it can be had again, in one piece.
            let all = vec![1; usize::try_from(capacity.total.get()).unwrap()];
            let shard = self.manager.seal_model("all", 0, &all).unwrap();
            self.manager.free_shard(&shard).unwrap();
        }
    }
}

/// What one run of an operation came to.
pub(crate) enum Outcome<T> {
    Done(T),
    Refused(VramError),
    Panicked,
}

/// The faults that a kind of call can meet, but for sticky ones.
fn actions(op: Op) -> Vec<Action> {
    let error = GpuError::driver(GpuIndex::new(0), 1);
    let mut actions = vec![Action::Fail(error), Action::FailAfterwards(error), Action::Panic];
    match op {
        // Bytes that a fill did not write cannot be noticed by anybody.
        Op::Fill => {}
        Op::QueueWrite | Op::QueueRead => {
            actions.push(Action::LateFail(error));
            actions.extend(lies());
        }
        _ => actions.extend(lies()),
    }
    actions
}

fn lies() -> [Action; 3] {
    [Action::FlipBit { byte: 5, bit: 3 }, Action::ShortCopy { keep: 100 }, Action::DropCopy]
}

/// Runs `run` with one fault at a time, at every call of every kind, and `check` after each.
///
/// # Returns
///
/// How many faults were met.
pub(crate) fn sweep<S, T>(
    build: impl Fn() -> (Rig, S),
    run: impl Fn(&Rig, &S) -> Result<T, VramError>,
    check: impl Fn(&Rig, S, Outcome<T>, &str),
) -> usize {
    let mut met = 0;
    for op in [Op::Write, Op::Read, Op::Fill, Op::QueueWrite, Op::QueueRead, Op::Staging] {
        let actions = if op == Op::Staging {
            vec![Action::Fail(GpuError::HostMemory { wanted: ByteLen::MIB }), Action::Panic]
        } else {
            actions(op)
        };
        for action in actions {
            for nth in 1.. {
                let (rig, state) = build();
                rig.device.clear_log();
                rig.device.add(op, When::Nth(nth), action.clone()).unwrap();
                let outcome = match catch_unwind(AssertUnwindSafe(|| run(&rig, &state))) {
                    Ok(Ok(done)) => Outcome::Done(done),
                    Ok(Err(error)) => Outcome::Refused(error),
                    Err(_panic) => Outcome::Panicked,
                };
                rig.device.clear();
                if rig.device.calls().iter().all(|call| call.injected.is_none()) {
                    break;
                }
                met += 1;
                check(&rig, state, outcome, &format!("{action:?} at {op:?} number {nth}"));
            }
        }
    }
    met
}

/// Bytes without a pattern, the same for the same seed.
pub(crate) fn content(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}
