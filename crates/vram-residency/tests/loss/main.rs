//! Losing a device, and getting it back: what is gone, what comes back from copies, and what nobody
//! else notices.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test fails by panicking"
)]

mod backups;
mod images;
mod races;
mod refused;
mod reset;
mod rig;
mod winding_up;
