#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

#[cfg(test)]
#[macro_use]
extern crate vram_testkit;

mod card;
mod figure;
mod library;
mod monitor;
mod prometheus;
mod words;
mod xid;

pub use card::{CardHealth, CardScope, EccCounts, HOLDERS_MAX, Holder, Holders, Remapped};
pub use figure::Figure;
pub use library::{LIBRARY_VARIABLE, NoLibrary};
pub use monitor::{Answer, Monitor, MonitorOptions, Reading};
pub use prometheus::{NamedCard, to_prometheus};
pub use xid::{XID_UNKNOWN, XidCount, XidEvent, XidMeaning, XidWatch, meaning};
