//! Watching: the age of each shard's last check, and the scrubber that renews it.

mod ages;
mod hands;
mod hangs;
mod scrub;
mod steps;
mod thread;
mod vain;
