//! A shard that could not be woken, and why.

/// Generates the error of a wake from the type that stays parked and the name that it is shown
/// under.
macro_rules! wake_error {
    (
        $(#[$doc:meta])* $error:ident,
        $(#[$into:meta])* $parked:ty, $(#[$both:meta])* |$shown:ident| $name:expr
    ) => {
        $(#[$doc])*
        pub struct $error {
            // On the heap: this is the error of a call that mostly succeeds.
            failed: Box<($parked, VramError)>,
        }

        impl $error {
            pub(crate) fn new(parked: $parked, error: VramError) -> Self {
                Self { failed: Box::new((parked, error)) }
            }

            /// Why it could not be woken.
            #[must_use]
            pub fn error(&self) -> &VramError {
                &self.failed.1
            }

            $(#[$into])*
            pub fn into_parked(self) -> $parked {
                self.failed.0
            }

            $(#[$both])*
            pub fn into_parts(self) -> ($parked, VramError) {
                *self.failed
            }
        }

        impl crate::parts::Coded for $error {
            fn code(&self) -> &'static str {
                self.error().code()
            }
        }

        impl core::fmt::Debug for $error {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.debug_struct(stringify!($error))
                    .field("parked", &self.failed.0)
                    .field("error", &self.failed.1)
                    .finish()
            }
        }

        impl core::fmt::Display for $error {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                let ($shown, error) = &*self.failed;
                write!(f, "{} stays parked: {error}", $name)
            }
        }

        impl core::error::Error for $error {
            fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
                Some(&self.failed.1)
            }
        }
    };
}

pub(crate) use wake_error;

use crate::error::VramError;
use crate::shard::ParkedShard;

wake_error! {
    /// A parked shard that could not be woken, and the reason. The shard is unchanged: wake it on
    /// another GPU, retry, or drop it.
    WakeError,
    /// The shard, still parked.
    #[must_use]
    ParkedShard,
    /// The shard and the reason.
    #[must_use]
    |parked| parked.shard_id()
}
