//! Looking after a store: what is there, whether it works, whether it is sound, what nothing names.

mod check;
mod collect;
mod list;
mod verify;

pub use check::{StoreCheck, Trial};
pub use collect::Collected;
pub use list::Listed;
pub use verify::{Finding, Sample, StoreVerdict, VerifyMeans};
