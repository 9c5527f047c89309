#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

#[cfg(test)]
#[macro_use]
extern crate vram_testkit;

mod event;
mod hub;
mod log;
mod on_eviction;
mod queue;
mod sink;
mod sync;

pub use event::{Event, EventKind};
pub use hub::{Events, SinkThreads};
pub use log::EventLog;
pub use on_eviction::{EvictedFor, OnEviction};
pub use sink::{EventSink, SinkCounts, Sinks};
