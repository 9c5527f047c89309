//! Many shards at once.

pub(crate) mod admit;
pub(crate) mod free;
pub(crate) mod model;
pub(crate) mod moves;
pub(crate) mod parked;
pub(crate) mod request;
pub(crate) mod reserve;
pub(crate) mod reserve_request;
pub(crate) mod together;
