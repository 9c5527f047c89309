//! Many shards at once.

pub mod admit;
pub mod free;
pub mod model;
pub mod moves;
pub mod parked;
pub mod request;
pub mod reserve;
pub mod reserve_request;
pub mod together;
