//! The targets: one file each.

pub mod audit;
pub mod gguf;
pub mod handle;
pub mod image;
pub mod key;
pub mod model;
pub mod model_ticket;
pub mod ranges;
pub mod record;
pub mod table;
pub mod ticket;
