//! Resident shards: their handles, their leases, and that calls on unrelated shards never wait for
//! each other.

mod handles;
mod leases;
mod unrelated;
