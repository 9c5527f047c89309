//! Operations on many shards at once.

pub mod admit;
mod each;
pub mod free;
pub mod model;
pub mod moves;
pub mod parked;
pub mod request;
pub mod reserve;
pub mod reserve_request;
pub mod telling;
pub mod together;

pub(crate) use self::admit::Placed;
pub use self::admit::images::ModelImport;
pub use self::model::{ModelHandle, ModelPiece, ModelSource, PieceSource};
pub use self::moves::ModelVerdict;
pub use self::parked::{WakeModelError, WakeModelRequest};
pub use self::request::AdmitRequest;
pub use self::reserve::PlanReservation;
pub use self::reserve_request::ReservePlanRequest;
pub use self::together::CallOptions;
pub use crate::shard::{ParkedModel, ParkedPiece};
