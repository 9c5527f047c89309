//! Room: who gets it, who keeps it, and what makes some.

mod budgets;
mod eviction;
mod hands;
mod plans;
mod policies;
mod reservations;
mod shortfalls;
