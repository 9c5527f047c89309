//! Losing a device, and getting it back: what is gone, what comes back from copies, and what nobody
//! else notices.

mod backups;
mod images;
mod races;
mod refused;
mod reset;
mod rig;
mod winding_up;
