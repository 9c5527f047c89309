//! Room: grants, reservations and evictions.

mod budgets;
mod eviction;
mod hands;
mod owners;
mod plans;
mod policies;
mod reservations;
mod shortfalls;
mod waits;
