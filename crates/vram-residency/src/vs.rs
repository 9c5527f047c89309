//! Counted, wiped device memory.

pub(crate) mod accounts;
pub(crate) mod block;
pub(crate) mod budget;
pub(crate) mod driver;
pub(crate) mod dry_run;
pub(crate) mod gpu;
pub(crate) mod health;
pub(crate) mod in_use_figures;
pub(crate) mod lanes;
pub(crate) mod place_granted;
pub(crate) mod pool;
pub(crate) mod release;
pub(crate) mod reset;
pub(crate) mod space;
