//! Watching: how old what is known about a shard is, and the scrubber that keeps it young.

mod ages;
mod hands;
mod scrub;
mod steps;
mod thread;
mod vain;
