//! Host memory that copies pass through.

pub(crate) mod at_work;
pub(crate) mod bound;
pub(crate) mod lanes;
pub(crate) mod pool;
pub(crate) mod together;
