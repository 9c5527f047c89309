//! Writes what was altered again, from the files or the store that the model was loaded from.

use std::collections::BTreeSet;

use serde::Serialize;
use vram_residency::{ModelFiles, ModelPiece, PieceSource, RepairOptions, RepairReport};

use super::Engine;
use super::load::files_of;
use crate::problem::Problem;

/// What a repair did.
#[derive(Debug, Serialize)]
pub(crate) struct Repaired {
    pub(crate) model: String,
    /// Shards that were altered, and are sound now.
    pub(crate) shards: usize,
    /// Segments that were written again.
    pub(crate) segments: u64,
}

impl Engine {
    /// Repairs every shard of a model that is in quarantine.
    pub(crate) fn repair(&self, name: &str) -> Result<Repaired, Problem> {
        let model = self.resident(name)?;
        let slot = self.slots().get(name).map(|slot| (slot.config.clone(), slot.origin.clone()));
        let (config, origin) = slot.ok_or_else(|| Problem::no_such_model(name))?;
        let shards = self.manager.report().shards;
        let altered = shards.iter().filter(|shard| shard.quarantine.is_some());
        let altered: BTreeSet<_> = altered.map(|shard| &shard.shard_id).collect();
        let mut repaired = Repaired { model: name.to_owned(), shards: 0, segments: 0 };
        let mut files: Option<ModelFiles> = None;
        for piece in &model.pieces {
            if !altered.contains(&piece.shard.shard_id) {
                continue;
            }
            let report = match (&origin, &mut files) {
                (Some(origin), _) => self.repair_stored(origin, piece)?,
                (None, Some(files)) => self.repair_from_files(name, files, piece)?,
                (None, none) => self.repair_from_files(
                    name,
                    none.insert(files_of(&config, self.limits)?),
                    piece,
                )?,
            };
            if report.was_altered {
                repaired.shards = repaired.shards.saturating_add(1);
                repaired.segments = repaired.segments.saturating_add(report.segments.count());
            }
        }
        Ok(repaired)
    }

    fn repair_from_files(
        &self,
        name: &str,
        files: &ModelFiles,
        piece: &ModelPiece,
    ) -> Result<RepairReport, Problem> {
        // Whether its bytes are those that were sealed, the repair itself finds out.
        let source = PieceSource::new(files, &piece.piece);
        let repaired = self.manager.repair_from(&piece.shard, source, RepairOptions::new());
        repaired.map_err(|error| self.told_of(name, &error))
    }
}
