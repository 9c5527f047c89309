//! Adds a sealed shard to the registry.

use std::sync::Arc;

use vram_alloc::ByteLen;
use vram_events::EventKind;
use vram_id::ShardId;
use vram_space::Space;

use crate::parts::Core;
use crate::resident::lease;
use crate::sealing::SealRequest;
use crate::shard::{Ages, Copies, Counted, Entry, Moment, Seal, SealedShard, Standing, State};

/// A complete entry for the shard in `space`. `verified` is when its read-back began, if all of it
/// was read back. The entry is not in the registry yet: dropping it returns everything.
pub(crate) fn entry(
    core: &Core,
    id: ShardId,
    request: &SealRequest,
    seal: Arc<Seal>,
    mut space: Space,
    counted: Counted,
    verified: Option<Moment>,
) -> Arc<Entry> {
    space.commit();
    let len = seal.opener.fields().plaintext_len();
    let state = State {
        seal,
        space: Some(space),
        parked: false,
        host_len: ByteLen::ZERO,
        generation: 0,
        quarantine: None,
        ages: Ages::new(Moment::now(&*core.clock), verified),
        copies: Copies::default(),
    };
    let owner = request.owner.clone();
    let standing = Standing::new(request.claim);
    let events = Arc::clone(&core.events);
    let sealed_as = request.sealed_as.clone();
    let entry = Entry::new(id, sealed_as, owner, len, standing, events, state, counted);
    lease::used(core, &entry);
    Arc::new(entry)
}

/// Makes a complete entry resident.
pub(crate) fn publish(core: &Core, entry: Arc<Entry>) -> SealedShard {
    let handle = core.handle(&entry);
    if let Some(space) = entry.state().space.as_mut() {
        space.keep();
    }
    tracing::info!(
        shard = %entry.id,
        gpu = handle.gpu_index,
        bytes = entry.plaintext_len.get(),
        "sealed"
    );
    // Take the gate before inserting, so that no other call can emit an event for this shard before
    // `Sealed`. No other thread knows the entry yet, so this never blocks.
    let known = Arc::clone(&entry);
    let _pass = known.gate.try_exclusive();
    core.registry.insert(entry);
    // Marks placing as finished only now: a thread that waits for running calls then finds the
    // shard in the registry.
    if let Some(space) = known.state().space.as_mut() {
        space.finish_placing();
    }
    core.events.emit(EventKind::Sealed {
        shard: known.id.clone(),
        model_id: Arc::clone(&known.sealed_as.model_id),
        owner: known.owner.clone(),
        gpu: handle.gpu_index,
        bytes: known.plaintext_len,
    });
    handle
}
