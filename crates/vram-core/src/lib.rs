#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![expect(
    clippy::missing_errors_doc,
    reason = "the methods of the facade, which call these functions one to one, state the errors"
)]

#[cfg(test)]
#[macro_use]
extern crate vram_testkit;

/// Generates setters from lines `fn name(argument: Type) => field = value;`; `[const]` before one
/// makes it a `const fn`.
macro_rules! setters {
    ($($(#[$meta:meta])* $([$const:tt])? fn $name:ident($($argument:ident: $type:ty)?)
        => $($field:ident).+ = $value:expr;)*) => {$(
        $(#[$meta])*
        pub $($const)? fn $name(mut self $(, $argument: $type)?) -> Self {
            self.$($field).+ = $value;
            self
        }
    )*};
}

pub mod close;
pub mod error;
pub mod models;
pub mod moves;
pub mod parts;
pub mod repair;
pub mod reports;
pub mod reset;
pub mod resident;
pub mod room;
#[cfg(all(test, shuttle))]
mod schedules;
pub mod scrub;
pub mod sealing;
pub mod shard;
mod sync;
pub mod transfer;
