//! Looking after a store: what is there, whether it works, whether it is sound, what nothing names.

mod cached;
mod check;
mod collect;
mod list;
mod mark;
mod rivals;
mod verify;

pub use check::{StoreCheck, Trial};
pub use collect::Collected;
pub use list::Listed;
pub(crate) use mark::wait_for_collections;
pub use verify::{Finding, Sample, StoreVerdict, VerifyMeans};
