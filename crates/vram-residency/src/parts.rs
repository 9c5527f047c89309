//! What all operations share.

pub(crate) mod call;
pub(crate) mod closing;
pub(crate) mod core;
pub(crate) mod gpus;
pub(crate) mod keys;
pub(crate) mod limits;
pub(crate) mod links;
pub(crate) mod meter;
pub(crate) mod policy;
pub(crate) mod promise;
pub(crate) mod residents;
