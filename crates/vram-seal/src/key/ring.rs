//! Several keys at once, for rotation: one seals, and all of them open.

use std::collections::BTreeMap;

use crate::key::id::{KeyError, KeyId};
use crate::key::master::SealKey;

/// Keys by id. The active key seals; a record is opened with the key that it names.
#[derive(Debug)]
pub struct KeyRing {
    active: SealKey,
    others: BTreeMap<KeyId, SealKey>,
}

impl KeyRing {
    /// A ring of one key, which is the active one.
    #[must_use]
    pub const fn new(active: SealKey) -> Self {
        Self { active, others: BTreeMap::new() }
    }

    /// Adds a key that can open records, and can be made active.
    ///
    /// # Errors
    ///
    /// [`KeyError::DuplicateId`] if the ring already has a key with that id; the ring is unchanged.
    pub fn add(&mut self, key: SealKey) -> Result<(), KeyError> {
        let id = key.id();
        if self.get(&id).is_some() {
            return Err(KeyError::DuplicateId { id });
        }
        self.others.insert(id, key);
        Ok(())
    }

    /// The key with this id.
    #[must_use]
    pub fn get(&self, id: &KeyId) -> Option<&SealKey> {
        if self.active.id() == *id { Some(&self.active) } else { self.others.get(id) }
    }

    /// The key for new seals.
    #[must_use]
    pub const fn active(&self) -> &SealKey {
        &self.active
    }

    /// Makes another key of the ring the active one. The former active key stays in the ring.
    ///
    /// # Errors
    ///
    /// [`KeyError::UnknownId`] if no key has that id; the ring is unchanged.
    pub fn set_active(&mut self, id: &KeyId) -> Result<(), KeyError> {
        if self.active.id() == *id {
            return Ok(());
        }
        let next = self.others.remove(id).ok_or(KeyError::UnknownId { id: *id })?;
        let before = core::mem::replace(&mut self.active, next);
        self.others.insert(before.id(), before);
        Ok(())
    }

    /// Removes a key from the ring: shards sealed under it can no longer be opened.
    ///
    /// # Errors
    ///
    /// [`KeyError::ActiveKey`] for the active key, [`KeyError::UnknownId`] for an id that is not in
    /// the ring; the ring is unchanged.
    pub fn remove(&mut self, id: &KeyId) -> Result<SealKey, KeyError> {
        if self.active.id() == *id {
            return Err(KeyError::ActiveKey { id: *id });
        }
        self.others.remove(id).ok_or(KeyError::UnknownId { id: *id })
    }

    /// The ids of all keys, in ascending order.
    #[must_use]
    pub fn ids(&self) -> Vec<KeyId> {
        let mut ids: Vec<KeyId> = self.others.keys().copied().collect();
        ids.push(self.active.id());
        ids.sort_unstable();
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_refuses_a_second_key_of_one_id() {
        let mut ring = KeyRing::new(SealKey::from_bytes(&[1; 32]));
        let id = ring.active().id();
        assert_eq!(ring.add(SealKey::from_bytes(&[1; 32])), Err(KeyError::DuplicateId { id }));
        ring.add(SealKey::from_bytes(&[2; 32])).expect("another key");
        assert!(ring.add(SealKey::from_bytes(&[2; 32])).is_err());
        assert_eq!(ring.ids().len(), 2);
    }

    #[test]
    fn rotation_keeps_the_key_before() {
        let mut ring = KeyRing::new(SealKey::from_bytes(&[1; 32]));
        let old = ring.active().id();
        let new = SealKey::from_bytes(&[2; 32]);
        let new_id = new.id();
        assert_eq!(ring.set_active(&new_id), Err(KeyError::UnknownId { id: new_id }));
        ring.add(new).expect("another key");
        ring.set_active(&new_id).expect("it is there");
        assert_eq!(ring.active().id(), new_id);
        assert!(ring.get(&old).is_some());
        assert_eq!(ring.remove(&new_id).err(), Some(KeyError::ActiveKey { id: new_id }));
        ring.remove(&old).expect("no longer active");
        assert_eq!(ring.ids(), [new_id]);
    }
}
