//! Room: who gets it, who keeps it, and what makes some.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::large_stack_arrays,
    clippy::arithmetic_side_effects,
    reason = "a test fails by panicking"
)]

mod budgets;
mod eviction;
mod hands;
mod plans;
mod reservations;
