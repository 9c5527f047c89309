//! Writes what was altered again, from the files that the model was loaded from.

use std::collections::BTreeSet;

use serde::Serialize;
use vram_residency::{ModelFiles, ModelSource, Piece, RepairOptions, Source, SourceError};

use super::Engine;
use super::calls::files_of;
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
        let config = self.slots().get(name).map(|slot| slot.config.clone());
        let config = config.ok_or_else(|| Problem::no_such_model(name))?;
        let shards = self.manager.report().shards;
        let altered = shards.iter().filter(|shard| shard.quarantine.is_some());
        let altered: BTreeSet<_> = altered.map(|shard| &shard.shard_id).collect();
        let mut repaired = Repaired { model: name.to_owned(), shards: 0, segments: 0 };
        let mut files: Option<ModelFiles> = None;
        for piece in &model.pieces {
            if !altered.contains(&piece.shard.shard_id) {
                continue;
            }
            let files = match &mut files {
                Some(files) => files,
                none => none.insert(files_of(&config)?),
            };
            let source = PieceOf { files, piece: &piece.piece };
            let report = self.manager.repair_from(&piece.shard, source, RepairOptions::new());
            let report = report.map_err(|error| self.told_of(name, &error))?;
            if report.was_altered {
                repaired.shards = repaired.shards.saturating_add(1);
                repaired.segments = repaired.segments.saturating_add(report.segments.count());
            }
        }
        Ok(repaired)
    }
}

/// One piece of a model's plan, as a source of its own. Whether its bytes are those that were sealed,
/// the repair itself finds out.
#[derive(Debug)]
struct PieceOf<'m> {
    files: &'m ModelFiles,
    piece: &'m Piece,
}

impl Source for PieceOf<'_> {
    fn len(&self) -> u64 {
        self.piece.len.get()
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> Result<(), SourceError> {
        let position = self.piece.source_offset.checked_add(offset);
        let position = position.ok_or_else(|| SourceError::NoSuchBytes {
            name: self.piece.name.clone(),
            offset,
            len: u64::try_from(target.len()).unwrap_or(u64::MAX),
            declared: self.piece.len.get(),
        })?;
        self.files.read_at(self.piece.file, position, target)
    }
}
