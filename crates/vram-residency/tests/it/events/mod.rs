//! Events are delivered in order, to sinks for which no call waits.

mod faults;
mod kinds;
mod loss;
mod models;
mod order;
mod replay;
mod sinks;

use core::ops::Deref;
use core::time::Duration;

use vram_residency::device::fault::FaultPlan;
use vram_residency::{Event, EventLog, Lru, MemoryMode, VramManagerBuilder};
use vram_test_rigs::{Rig, devices};

/// Longer than any operation of these tests.
const LONG: Duration = Duration::from_mins(1);

/// A rig, and all events of its manager.
struct Telling {
    rig: Rig,
    log: EventLog,
}

impl Deref for Telling {
    type Target = Rig;

    fn deref(&self) -> &Rig {
        &self.rig
    }
}

fn rig(totals: &[usize]) -> Telling {
    rig_with(totals, |builder| builder)
}

fn rig_with(
    totals: &[usize],
    also: impl FnOnce(VramManagerBuilder) -> VramManagerBuilder,
) -> Telling {
    let log = EventLog::new(100_000);
    let devices = devices(totals, &FaultPlan::new(1));
    let rig = Rig::over(devices, MemoryMode::Region, |builder| {
        also(builder.eviction(Lru).event_sink(log.clone()))
    });
    Telling { rig, log }
}

impl Telling {
    /// The events since the last call of this.
    fn told(&self) -> Vec<Event> {
        assert!(self.manager.flush_events(LONG));
        self.log.take()
    }

    /// The names of the events since the last call of this.
    fn names(&self) -> Vec<&'static str> {
        self.told().iter().map(|event| event.kind.name()).collect()
    }
}
