#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

#[cfg(test)]
#[macro_use]
extern crate vram_testkit;

mod event;
mod hub;
mod level;
mod log;
mod on_eviction;
mod queue;
mod sink;
mod sync;
mod whose;

pub use event::{Event, EventKind};
pub use hub::{Events, SinkThreads};
pub use level::EventLevel;
pub use log::EventLog;
pub use on_eviction::{EvictedFor, OnEviction};
pub use sink::{EventSink, SinkCounts, Sinks};
pub use whose::{PieceName, Whose};
