//! The handle of a resident shard, and the mark by which a manager recognises its own handles.

use core::fmt;
use std::sync::Arc;

use vram_id::ShardId;
use vram_seal::{Protection, SealKey, SealRecord, TicketKey};

use crate::error::VramError;

/// A handle of one resident shard: its id, and the seal record that authenticates it.
///
/// It holds no pointer and no secret. Dropping it frees nothing: the manager owns the shard, and
/// lists fresh handles. Clones stay valid when the shard moves. The public fields are for reading:
/// a handle whose fields were changed is refused and changes nothing.
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

/// A keyed code over all fields of a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
struct Mark([u8; 32]);

/// Makes handles and checks them. Its key exists only as long as the manager.
#[derive(Debug)]
pub struct Marker {
    manager: ManagerId,
    key: TicketKey,
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
        let key = SealKey::random()?.ticket_key();
        Ok(Self { manager: ManagerId(*id.as_bytes()), key })
    }

    /// The id that distinguishes this manager from others.
    pub(crate) const fn manager(&self) -> ManagerId {
        self.manager
    }

    pub(crate) fn handle(&self, stated: Stated) -> SealedShard {
        let mut handle = SealedShard {
            shard_id: stated.shard_id,
            gpu_index: stated.gpu_index,
            sealed_data: stated.sealed_data,
            model_id: stated.model_id,
            plaintext_len: stated.plaintext_len,
            protection: stated.protection,
            manager: self.manager,
            generation: stated.generation,
            mark: Mark([0; 32]),
        };
        handle.mark = Mark(self.key.sign(&encode(&handle)));
        handle
    }

    /// Checks that the handle is as this manager made it.
    ///
    /// # Errors
    ///
    /// [`VramError::ForeignHandle`] if another manager made the handle,
    /// [`VramError::HandleAltered`] if a field differs from what was made.
    pub(crate) fn check(&self, handle: &SealedShard) -> Result<(), VramError> {
        if handle.manager != self.manager {
            return Err(VramError::ForeignHandle { shard: handle.shard_id.clone() });
        }
        self.key
            .verify(&encode(handle), &handle.mark.0)
            .map_err(|_mismatch| VramError::HandleAltered { shard: handle.shard_id.clone() })
    }
}

/// Everything in a handle but its mark, so that no two handles share an encoding: fixed fields in
/// a fixed order, then two texts, each after its length.
///
/// | bytes      | field                          |
/// |------------|--------------------------------|
/// | `0..16`    | domain separator               |
/// | `16..32`   | manager                        |
/// | `32..40`   | generation, little endian      |
/// | `40..48`   | plaintext length, likewise     |
/// | `48..52`   | GPU index, likewise            |
/// | `52`       | protection: 1, 2; 0 unknown    |
/// | `53..309`  | seal record                    |
/// | `309..`    | shard id, model id             |
fn encode(handle: &SealedShard) -> Vec<u8> {
    const DOMAIN: &[u8; 16] = b"vram-handle/0001";

    let mut bytes = Vec::with_capacity(512);
    bytes.extend_from_slice(DOMAIN);
    bytes.extend_from_slice(&handle.manager.0);
    bytes.extend_from_slice(&handle.generation.to_le_bytes());
    bytes.extend_from_slice(&handle.plaintext_len.to_le_bytes());
    bytes.extend_from_slice(&handle.gpu_index.to_le_bytes());
    bytes.push(match handle.protection {
        Protection::Encrypted => 1,
        Protection::Authenticated => 2,
        _ => 0,
    });
    bytes.extend_from_slice(&handle.sealed_data);
    for text in [handle.shard_id.as_str(), &*handle.model_id] {
        let len = u64::try_from(text.len()).unwrap_or(u64::MAX);
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
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

    /// Each field is bound: change any one and the handle is refused.
    #[test]
    fn a_mark_holds_for_its_own_handle_only() {
        let marker = Marker::new().unwrap();
        assert!(altered(&marker, |handle| handle.gpu_index ^= 1));
        assert!(altered(&marker, |handle| handle.plaintext_len += 1));
        assert!(altered(&marker, |handle| handle.model_id = "modem".into()));
        assert!(altered(&marker, |handle| handle.protection = Protection::Authenticated));
        assert!(altered(&marker, |handle| handle.generation += 1));
        assert!(altered(&marker, |handle| handle.mark.0[31] ^= 1));
        assert!(altered(&marker, |handle| {
            handle.shard_id = IdSource::Process.next(&SystemClock);
        }));
        for byte in 0..256 {
            assert!(altered(&marker, |handle| handle.sealed_data[byte] ^= 0x80));
        }
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
