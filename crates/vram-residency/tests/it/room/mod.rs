//! Room: grants, reservations and evictions.

mod budgets;
mod eviction;
mod hands;
mod models;
mod models_changed;
mod models_in_use;
mod owners;
mod plans;
mod policies;
mod reservations;
mod shortfalls;
mod waits;
