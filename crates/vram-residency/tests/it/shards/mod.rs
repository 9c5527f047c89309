//! Resident shards: their handles, their leases, and that calls on unrelated shards never wait for
//! each other.

mod handles;
mod holders;
mod leases;
mod unrelated;
