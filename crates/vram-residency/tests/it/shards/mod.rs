//! Resident shards: their handles, their leases, and that unrelated ones never wait for each other.

mod handles;
mod leases;
mod unrelated;
