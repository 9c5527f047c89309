//! Repair: an altered shard is restored from its own source, and from no other.

mod images;
mod meanwhile;
mod relocate;
mod replicas;
mod sources;
mod whole;

use vram_residency::{Protection, SealRequest, SealedShard, SivScope, Suite, Verify, VramError};

use vram_test_rigs::{Rig, SEGMENT};

/// Both protections, both scopes, both ciphers.
pub(crate) fn requests() -> Vec<SealRequest> {
    let base = SealRequest::new("model", 0).context(b"tenant").revision(4);
    let mut requests = vec![base.clone().protection(Protection::Authenticated)];
    for scope in [SivScope::Shard, SivScope::Segment] {
        for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            requests.push(base.clone().scope(scope).suite(suite));
        }
    }
    requests
}

/// Flips a bit in a segment of the only shard.
pub(crate) fn alter(rig: &Rig, start: u64, segment: u64) {
    let at = start + segment * u64::try_from(SEGMENT).unwrap();
    rig.flip(0, at, 3);
}

pub(crate) fn quarantined(rig: &Rig, shard: &SealedShard) -> bool {
    matches!(rig.manager.unseal_model(shard), Err(VramError::Quarantined { .. }))
}

/// Seals, alters these segments, and verifies, so that they are found.
pub(crate) fn damaged(
    rig: &Rig,
    request: SealRequest,
    bytes: &[u8],
    segments: &[u64],
) -> SealedShard {
    let shard = rig.manager.seal(request, bytes).unwrap();
    let start = rig.written_at(0);
    for segment in segments {
        alter(rig, start, *segment);
    }
    assert!(!rig.manager.verify(&shard, Verify::Segments).unwrap().sound);
    assert!(quarantined(rig, &shard));
    shard
}

pub(crate) fn is_whole(
    rig: &Rig,
    shard: &SealedShard,
    bytes: &[u8],
    what: impl core::fmt::Display,
) {
    assert!(rig.manager.verify(shard, Verify::Full).unwrap().sound, "{what}");
    assert_eq!(rig.manager.unseal_model(shard).unwrap(), bytes, "{what}");
}
