//! Finds a placement for a shard that will be sealed.

use vram_alloc::ByteLen;
use vram_space::Space;

use crate::error::VramError;
use crate::parts::Core;
use crate::room::{Goal, make_room};
use crate::sealing::SealRequest;
use crate::shard::Counted;

/// Takes the slot, the placement and the bytes that one more shard of `len` bytes needs. Nothing is
/// read or written.
pub(crate) fn place(
    core: &Core,
    request: &SealRequest,
    len: ByteLen,
) -> Result<(Space, Counted), VramError> {
    let (gpu, lens) = (core.gpu(request.gpu)?, [len]);
    let gpus = core::slice::from_ref(gpu);
    make_room::with_room(core, gpus, Goal::Pieces(&lens), request.room_making(), || {
        place_once(core, request, len)
    })
}

/// Like [`place`](Self::place), without making room.
pub(crate) fn place_once(
    core: &Core,
    request: &SealRequest,
    len: ByteLen,
) -> Result<(Space, Counted), VramError> {
    let counted = admissible(core, request, len)?;
    Ok((core.gpu(request.gpu)?.place(len)?, counted))
}

/// Checks a request, and takes a slot in the count of resident shards for it.
pub(crate) fn admissible(
    core: &Core,
    request: &SealRequest,
    len: ByteLen,
) -> Result<Counted, VramError> {
    core.check_open()?;
    request.check()?;
    core.gpu(request.gpu)?;
    admissible_len(core, len)
}

/// Checks the length of a shard, and takes a slot in the count of resident shards for it.
pub(crate) fn admissible_len(core: &Core, len: ByteLen) -> Result<Counted, VramError> {
    let limit = core.limits.shard_len_max;
    if len > limit {
        return Err(VramError::LimitExceeded {
            what: "bytes of one shard",
            limit: limit.get(),
            wanted: len.get(),
        });
    }
    core.registry.count_one()
}
