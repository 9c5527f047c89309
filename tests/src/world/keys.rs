//! Steps with keys: change the active key, move a shard to another key, retire a key.

use crate::reference::Description;
use crate::rig::keys;

use super::{Checked, Expect, World, alone, reading};

impl World {
    pub(super) fn reseal(&mut self, shard: usize, key: usize) -> Checked<()> {
        let Some(id) = self.reference.pick(shard) else { return Ok(()) };
        let known = &self.reference.shards[&id];
        let (gpu, handle, same) = (known.gpu, known.handle.clone(), known.key == key);
        if same && !known.quarantined && !known.sound() {
            // Nothing has to be done, so the call need not check the shard.
            return Ok(());
        }
        let coded = !same && known.description == Description::Coded;
        if coded && !known.sound() {
            // Refused for one reason or the other.
            return Ok(());
        }
        let expect = match alone(known, reading(known, 0, known.bytes.len())) {
            Expect::Fine if coded => Expect::Refused("metadata-key"),
            expect => expect,
        };
        let before = self.picture();
        let answer = self.rig.manager.reseal_shard(&handle, &keys()[key].id());
        self.note_quarantine(&id, &answer);
        if let Some(resealed) = self.judge(expect, &before, answer, &[gpu])? {
            ensure!(resealed.shard_id == id, "the id changed");
            let changed = resealed.sealed_data != handle.sealed_data;
            ensure!(changed != same, "under another key the record changes, and only then");
            let known = self.reference.shards.get_mut(&id).ok_or("it was just there")?;
            if same {
                known.handle = resealed;
            } else {
                known.seal_anew(resealed);
                known.key = key;
            }
        }
        Ok(())
    }

    pub(super) fn activate_key(&mut self, key: usize) -> Checked<()> {
        let before = self.picture();
        let answer = self.rig.manager.set_active_key(&keys()[key].id());
        answer.map_err(|error| error.to_string())?;
        self.reference.active_key = key;
        let mut now = self.picture();
        now.state.keys.active = before.state.keys.active;
        ensure!(now == before, "another active key changed more than that");
        Ok(())
    }

    pub(super) fn retire_key(&mut self, key: usize) -> Checked<()> {
        let parked = self.parked.iter().map(|parked| &parked.known);
        let models = self.parked_models.iter().flat_map(|model| &model.known);
        let mut all = self.reference.shards.values().chain(parked).chain(models);
        let expect = if key == self.reference.active_key {
            Expect::Refused("key")
        } else if all.any(|known| known.key == key) {
            Expect::Refused("key-in-use")
        } else {
            Expect::Fine
        };
        let before = self.picture();
        let id = keys()[key].id();
        let answer = self.rig.manager.retire_key(&id);
        if self.judge(expect, &before, answer, &[])?.is_some() {
            ensure!(!self.rig.manager.key_ids().contains(&id), "the key is still there");
            let [first, second] = keys();
            let again = if key == 0 { first } else { second };
            self.rig.manager.add_key(again).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}
