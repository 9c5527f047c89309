//! Host memory that copies go through.

pub(crate) mod at_work;
pub(crate) mod lanes;
pub(crate) mod pool;
