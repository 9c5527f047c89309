//! The handle of a resident shard, and the mark by which a manager recognises its own handles.

use core::fmt;
use core::hint::black_box;
use std::sync::Arc;

use vram_id::ShardId;
use vram_seal::{MarkKey, Protection, SealKey, SealRecord};

use crate::error::VramError;
use crate::shard::entry::State;
use crate::shard::{Entry, ShardCause, ShardState};

/// A handle of one resident shard: its id, and the seal record that authenticates it.
///
/// It holds no pointer and no secret. Dropping it frees nothing: the manager owns the shard, and
/// lists fresh handles. Clones stay valid when the shard moves. The public fields are for reading:
/// a handle whose fields were changed is refused and changes nothing: as altered, or as stale, parked or freed
/// if the shard itself is no longer as the handle says.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SealedShard {
    /// The id of the shard, by which the manager finds it.
    pub shard_id: ShardId,
    /// The GPU that held the shard when the handle was made. No call uses it to select a GPU.
    pub gpu_index: u32,
    /// The seal record: everything that authenticates the shard, in 256 bytes. The sealed bytes
    /// themselves are in device memory.
    pub sealed_data: SealRecord,
    /// The model that the shard was sealed as.
    pub model_id: Arc<str>,
    /// Bytes of plaintext.
    pub plaintext_len: u64,
    /// What lies in device memory.
    pub protection: Protection,
    pub(crate) manager: ManagerId,
    pub(crate) generation: u64,
    mark: Mark,
}

impl fmt::Debug for SealedShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedShard")
            .field("shard_id", &self.shard_id)
            .field("gpu_index", &self.gpu_index)
            .field("model_id", &self.model_id)
            .field("plaintext_len", &self.plaintext_len)
            .field("protection", &self.protection)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// Distinguishes one manager from another, also across processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub(crate) struct ManagerId([u8; 16]);

impl ManagerId {
    pub(crate) const fn into_bytes(self) -> [u8; 16] {
        self.0
    }
}

/// A keyed code over what only the manager can know of a handle: that it made one of this shard, as it
/// was sealed then, while the shard lay on this GPU. All else in a handle follows from that, and is
/// compared with the shard ([`Entry::admits`](crate::shard::Entry::admits)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
struct Mark([u8; 32]);

/// Makes handles and checks them. Its key exists only as long as the manager.
#[derive(Debug)]
pub struct Marker {
    manager: ManagerId,
    key: MarkKey,
}

/// The fields of a handle that has no mark yet.
#[derive(Clone, Debug)]
pub(crate) struct Stated {
    pub(crate) shard_id: ShardId,
    pub(crate) gpu_index: u32,
    pub(crate) sealed_data: SealRecord,
    pub(crate) model_id: Arc<str>,
    pub(crate) plaintext_len: u64,
    pub(crate) protection: Protection,
    pub(crate) generation: u64,
}

impl Marker {
    /// # Errors
    ///
    /// [`VramError::Key`] if the operating system gives no random bytes.
    pub fn new() -> Result<Self, VramError> {
        // Two independent secrets: the id is public, so it must not reveal anything about the key.
        let id = SealKey::random()?.id();
        Ok(Self { manager: ManagerId(*id.as_bytes()), key: MarkKey::random()? })
    }

    /// The id that distinguishes this manager from others.
    pub(crate) const fn manager(&self) -> ManagerId {
        self.manager
    }

    pub(crate) fn handle(&self, stated: Stated) -> SealedShard {
        let mark =
            Mark(self.key.mark(&marked(&stated.shard_id, stated.gpu_index, stated.generation)));
        SealedShard {
            shard_id: stated.shard_id,
            gpu_index: stated.gpu_index,
            sealed_data: stated.sealed_data,
            model_id: stated.model_id,
            plaintext_len: stated.plaintext_len,
            protection: stated.protection,
            manager: self.manager,
            generation: stated.generation,
            mark,
        }
    }

    /// Checks that this manager made a handle of the shard, sealed as often and on the GPU that the
    /// handle says. The other fields are those of the shard, and not looked at here.
    ///
    /// # Errors
    ///
    /// [`VramError::ForeignHandle`] if another manager made the handle,
    /// [`VramError::HandleAltered`] if its mark is not that of these fields.
    pub(crate) fn check(&self, handle: &SealedShard) -> Result<(), VramError> {
        if handle.manager != self.manager {
            return Err(VramError::ForeignHandle { shard: handle.shard_id.clone() });
        }
        let marked = marked(&handle.shard_id, handle.gpu_index, handle.generation);
        if self.key.is_mark(&marked, &handle.mark.0) {
            Ok(())
        } else {
            Err(VramError::HandleAltered { shard: handle.shard_id.clone() })
        }
    }
}

impl Entry {
    /// Checks that a handle, whose mark was checked, is of the shard as it is now, and that the shard
    /// can be used.
    ///
    /// # Errors
    ///
    /// In this order: [`VramError::Restoring`], those of [`check_current`](State::check_current), those of
    /// [`here`](Self::here).
    pub(crate) fn admits(&self, handle: &SealedShard) -> Result<(), VramError> {
        let state = self.state();
        // First: whether the handle is stale is known when the shard is back.
        if state.place().state() == ShardState::Restoring {
            return Err(VramError::Restoring { shard: self.id.clone() });
        }
        state.check_current(self, handle)?;
        state.place().allows(ShardCause::Use, &self.id)
    }

    /// Checks that what [`admits`](Self::admits) found is so still. At one generation a shard has one
    /// seal, so nothing else in the handle is compared again.
    ///
    /// # Errors
    ///
    /// Those of [`here`](Self::here); [`VramError::StaleHandle`] if the shard was sealed anew.
    pub(crate) fn still_admits(&self, handle: &SealedShard) -> Result<(), VramError> {
        let state = self.state();
        state.place().allows(ShardCause::Use, &self.id)?;
        if handle.generation == state.generation {
            Ok(())
        } else {
            Err(VramError::StaleHandle { shard: self.id.clone() })
        }
    }
}

impl State {
    /// Compares a handle, whose mark was checked, with the shard as it is now.
    ///
    /// # Errors
    ///
    /// [`VramError::StaleHandle`] if the shard was sealed anew after the handle was made,
    /// [`VramError::HandleAltered`] if a field is not the shard's.
    pub(crate) fn check_current(
        &self,
        entry: &Entry,
        handle: &SealedShard,
    ) -> Result<(), VramError> {
        if handle.generation != self.generation {
            return Err(VramError::StaleHandle { shard: entry.id.clone() });
        }
        // Every byte is looked at, whatever the first that differs.
        let record = self.seal.record();
        let bytes = handle.sealed_data.iter().zip(record.iter());
        let differing = black_box(bytes.fold(0, |bits, (a, b)| bits | (a ^ b)));
        let same = differing == 0
            && handle.plaintext_len == entry.plaintext_len.get()
            && handle.protection == self.seal.protection()
            && handle.model_id == entry.sealed_as.model_id;
        if same { Ok(()) } else { Err(VramError::HandleAltered { shard: entry.id.clone() }) }
    }
}

/// What a mark is over, in one block of the hash:
///
/// | bytes      | field                          |
/// |------------|--------------------------------|
/// | `0..8`     | domain separator               |
/// | `8..16`    | generation, little endian      |
/// | `16..20`   | GPU index, likewise            |
/// | `20..57`   | shard id, as text              |
/// | `57..64`   | zero                           |
fn marked(shard: &ShardId, gpu_index: u32, generation: u64) -> [u8; 64] {
    const DOMAIN: &[u8; 8] = b"handle/2";
    const { assert!(ShardId::LEN <= 64 - 20) };

    let mut bytes = [0; 64];
    let (domain, rest) = bytes.split_at_mut(8);
    domain.copy_from_slice(DOMAIN);
    let (sealed, rest) = rest.split_at_mut(8);
    sealed.copy_from_slice(&generation.to_le_bytes());
    let (gpu, rest) = rest.split_at_mut(4);
    gpu.copy_from_slice(&gpu_index.to_le_bytes());
    rest.split_at_mut(ShardId::LEN).0.copy_from_slice(shard.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use vram_id::IdSource;
    use vram_id::SystemClock;

    use super::*;

    fn handle(marker: &Marker) -> SealedShard {
        marker.handle(Stated {
            shard_id: IdSource::Process.next(&SystemClock),
            gpu_index: 1,
            sealed_data: SealRecord::from_bytes([5; 256]),
            model_id: "model".into(),
            plaintext_len: 77,
            protection: Protection::Encrypted,
            generation: 3,
        })
    }

    fn altered(marker: &Marker, change: impl FnOnce(&mut SealedShard)) -> bool {
        let mut handle = handle(marker);
        assert!(marker.check(&handle).is_ok());
        change(&mut handle);
        matches!(marker.check(&handle), Err(VramError::HandleAltered { .. }))
    }

    /// What the shard itself cannot tell is bound by the mark. All other fields are bound by being
    /// compared with the shard: `g10_the_other_fields_of_a_handle_are_bound_too`.
    #[test]
    fn a_mark_holds_for_its_own_handle_only() {
        let marker = Marker::new().unwrap();
        for bit in 0..32 {
            assert!(altered(&marker, |handle| handle.gpu_index ^= 1 << bit));
        }
        for bit in 0..64 {
            assert!(altered(&marker, |handle| handle.generation ^= 1 << bit));
        }
        for bit in 0..256 {
            assert!(altered(&marker, |handle| handle.mark.0[bit / 8] ^= 1 << (bit % 8)));
        }
        assert!(altered(&marker, |handle| {
            handle.shard_id = IdSource::Process.next(&SystemClock);
        }));
    }

    #[test]
    fn the_last_character_of_an_id_is_marked() {
        let id = IdSource::Process.next(&SystemClock);
        let bytes = marked(&id, 0, 0);
        assert_eq!(bytes[20..57], *id.as_bytes());
    }

    #[test]
    fn another_managers_handle_is_foreign() {
        let (ours, theirs) = (Marker::new().unwrap(), Marker::new().unwrap());
        assert!(matches!(ours.check(&handle(&theirs)), Err(VramError::ForeignHandle { .. })));
    }

    #[test]
    fn debug_shows_neither_record_nor_mark() {
        let marker = Marker::new().unwrap();
        let text = format!("{:?} {marker:?}", handle(&marker));
        // The manager's id is random bytes, and may contain a pair of fives by chance.
        assert!(!text.contains("5, 5, 5, 5, 5") && !text.contains("sealed_data"), "{text}");
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a_handle_survives_json_and_a_changed_one_is_refused() {
        let marker = Marker::new().unwrap();
        let handle = handle(&marker);
        let json = serde_json::to_string(&handle).unwrap();
        let back: SealedShard = serde_json::from_str(&json).unwrap();
        assert_eq!(back, handle);
        assert!(marker.check(&back).is_ok());

        let forged = json.replace("\"gpu_index\":1", "\"gpu_index\":2");
        let back: SealedShard = serde_json::from_str(&forged).unwrap();
        assert!(matches!(marker.check(&back), Err(VramError::HandleAltered { .. })));
    }
}
