//! One shard: its handle, its placement, its life, and the list of all shards.

pub mod ages;
pub mod census;
pub mod entry;
pub mod gate;
pub mod handle;
pub mod host;
pub mod parked;
pub mod place;
pub mod registry;
pub mod seal;
pub mod standing;

pub(crate) use self::ages::{Ages, Check, Moment};
pub use self::census::ModelCounts;
pub(crate) use self::census::{Census, CountedLease, Holding, Lies, Row};
pub(crate) use self::entry::member::{Admitted, HeldBy, Member, Of, UnderWay};
pub(crate) use self::entry::{Entry, Listeners, State, Told};
pub(crate) use self::gate::{Busy, Gate, Leased, Occupied, Refusal};
pub(crate) use self::handle::{ManagerId, Stated};
pub use self::handle::{Marker, SealedShard};
pub(crate) use self::host::{Backup, Copies, Exported};
pub use self::host::{ParkCapacity, Parked};
pub use self::parked::ParkedShard;
pub(crate) use self::parked::model::Evicted;
pub use self::parked::model::{ParkedModel, ParkedPiece};
pub(crate) use self::parked::{HostCopy, Listed};
pub(crate) use self::place::{Arrived, Place, View};
pub use self::place::{ShardCause, ShardState, ShardStep};
pub(crate) use self::registry::{Counted, Registry, Shards};
pub use self::seal::KeyUses;
pub(crate) use self::seal::{Description, KeyUse, Metadata, Seal, SealedAs};
pub(crate) use self::standing::{Claim, Standing};
