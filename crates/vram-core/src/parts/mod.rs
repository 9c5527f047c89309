//! The state and the types that all operations share.

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

pub use self::closing::Closing;
pub use self::core::{Core, Settings};
pub use self::gpus::GpuChoice;
pub use self::limits::Limits;
pub use self::links::{LinkState, Links};
pub(crate) use self::meter::TimedCall;
pub use self::meter::{Coded, Meters};
pub use self::policy::{Candidate, CostPerByte, EvictionPolicy, EvictionUnit, Lru, Priority};
pub use self::promise::Promises;
pub(crate) use self::promise::{Contents, Promise, Slot, Terms};
pub use self::residents::Residents;
