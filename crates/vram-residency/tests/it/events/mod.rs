//! Events: what happens is told, in order, to sinks that nobody waits for.

mod faults;
mod kinds;
mod loss;
mod replay;
mod sinks;

use core::time::Duration;
use std::sync::Arc;

use vram_residency::device::fault::FaultPlan;
use vram_residency::device::{FaultDevice, HostDevice};
use vram_residency::{
    ByteLen, Device, Event, EventLog, Lru, SealKey, SegmentSize, Threads, VramManager,
    VramManagerBuilder,
};

/// Bytes of a segment everywhere in these tests.
const SEGMENT: usize = 4096;
/// Longer than anything here takes.
const LONG: Duration = Duration::from_mins(1);

/// A manager over devices that fail on command, and everything it tells.
struct Rig {
    manager: VramManager,
    devices: Vec<Arc<FaultDevice>>,
    log: EventLog,
}

fn rig(totals: &[usize]) -> Rig {
    rig_with(totals, |builder| builder)
}

fn rig_with(
    totals: &[usize],
    choose: impl FnOnce(VramManagerBuilder) -> VramManagerBuilder,
) -> Rig {
    let totals: Vec<_> = totals.iter().map(|total| ByteLen::from_usize(*total)).collect();
    let hosts = HostDevice::several(&totals).unwrap();
    let devices: Vec<_> =
        hosts.into_iter().map(|host| FaultDevice::new(host, FaultPlan::new(1))).collect();
    let log = EventLog::new(100_000);
    let list = devices.iter().map(|device| Arc::clone(device) as Arc<dyn Device>);
    let builder = VramManager::builder()
        .devices(list)
        .key(SealKey::from_bytes([7; 32]))
        .segment_size(SegmentSize::MIN)
        .threads(Threads::ONE)
        .eviction(Lru)
        .event_sink(log.clone());
    Rig { manager: choose(builder).build().unwrap(), devices, log }
}

impl Rig {
    /// What was told since this was last asked.
    fn told(&self) -> Vec<Event> {
        assert!(self.manager.flush_events(LONG));
        self.log.take()
    }

    /// The names of what was told since this was last asked.
    fn names(&self) -> Vec<&'static str> {
        self.told().iter().map(|event| event.kind.name()).collect()
    }
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at * 31 + at / 255) % 251).unwrap()).collect()
}
