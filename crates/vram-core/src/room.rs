//! Making room.

pub mod evict;
pub mod free;
pub mod goal;
pub mod holders;
pub mod host_copy;
pub mod make_room;
pub mod park;
pub mod plan;
