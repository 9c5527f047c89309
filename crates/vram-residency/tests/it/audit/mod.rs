//! The audit log of events.

mod bytes;
mod lines;
