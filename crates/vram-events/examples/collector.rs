//! A collector that derives where each shard is from events alone, and reports what it missed.
//!
//! ```sh
//! cargo run -p vram-events --example collector
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use vram_alloc::ByteLen;
use vram_events::{Event, EventKind, EventSink, Events, Sinks};
use vram_id::{IdSource, ShardId, SystemClock};

#[derive(Default)]
struct Picture {
    gpu_of: BTreeMap<ShardId, u32>,
    missed: u64,
}

/// Follows the events. Clones share one state.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Picture>>);

impl EventSink for Collector {
    fn event(&mut self, event: &Event) {
        let mut picture = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &event.kind {
            EventKind::Sealed { shard, gpu, .. } => {
                picture.gpu_of.insert(shard.clone(), *gpu);
            }
            EventKind::Moved { shard, to, .. } => {
                picture.gpu_of.insert(shard.clone(), *to);
            }
            EventKind::Freed { shard, .. } => {
                picture.gpu_of.remove(shard);
            }
            _ => {}
        }
    }

    fn dropped(&mut self, count: u64) {
        let mut picture = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        picture.missed = picture.missed.saturating_add(count);
    }
}

fn main() -> std::io::Result<()> {
    let collector = Collector::default();
    let mut sinks = Sinks::new();
    sinks.add_with(64, collector.clone());
    let (events, _threads) = Events::start(Arc::new(SystemClock), sinks)?;

    let bytes = ByteLen::MIB;
    for gpu in 0..3 {
        let shard = IdSource::Process.next(&SystemClock);
        let (model_id, owner) = (Arc::from("llama-3-8b"), None);
        let id = shard.clone();
        events.emit(EventKind::Sealed { shard: id, model_id, owner, gpu, bytes });
        match gpu {
            1 => events.emit(EventKind::Moved { shard, from: gpu, to: 7, bytes }),
            2 => events.emit(EventKind::Freed { shard, gpu, bytes, wiped: true }),
            _ => {}
        }
    }

    assert!(events.flush(None), "every sink was given every event");
    let picture = collector.0.lock().unwrap_or_else(PoisonError::into_inner);
    for (shard, gpu) in &picture.gpu_of {
        println!("{shard} lies on gpu {gpu}");
    }
    println!("{} events missed; {:?}", picture.missed, events.counts());
    assert_eq!(picture.gpu_of.values().copied().collect::<Vec<_>>(), [0, 7]);
    drop(picture);
    Ok(())
}
