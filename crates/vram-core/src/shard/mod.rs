//! One shard: its handle, its placement, its life, and the list of all shards.

pub mod ages;
pub mod entry;
pub mod gate;
pub mod handle;
pub mod host;
pub mod parked;
pub mod registry;
pub mod seal;
pub mod seats;
pub mod standing;
pub mod view;

pub(crate) use self::ages::{Ages, Moment};
pub(crate) use self::entry::{Entry, State};
pub(crate) use self::gate::{Busy, Gate, Occupied, Refusal};
pub(crate) use self::handle::{ManagerId, Stated};
pub use self::handle::{Marker, SealedShard};
pub(crate) use self::host::{Backup, Copies, Exported};
pub use self::host::{ParkCapacity, Parked};
pub use self::parked::ParkedShard;
pub(crate) use self::parked::{HostCopy, Listed};
pub(crate) use self::registry::{Registry, Shards};
pub use self::seal::KeyUses;
pub(crate) use self::seal::{KeyUse, Seal, SealedAs};
pub(crate) use self::seats::Counted;
pub(crate) use self::standing::{Claim, Standing};
pub(crate) use self::view::{Arrived, View};
