//! Making room.

pub(crate) mod evict;
pub(crate) mod free;
pub(crate) mod goal;
pub(crate) mod holders;
pub(crate) mod host_copy;
pub(crate) mod make_room;
pub(crate) mod park;
pub(crate) mod plan;
