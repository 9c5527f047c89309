//! What all operations share.

pub mod call;
pub mod closing;
pub mod core;
pub mod gpus;
pub mod keys;
pub mod limits;
pub mod links;
pub mod meter;
pub mod policy;
pub mod promise;
pub mod residents;
