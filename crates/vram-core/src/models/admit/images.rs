//! Admits a model from sealed images, such as those of a store: all of them arrive, or none does.
//!
//! ```text
//!  begin(request, plan, protection of the images)
//!   1 every piece is placed and counted, in the order of the plan    no image is read yet
//!  import(image), for each piece
//!   2 the record, the table, every segment; written, and verified on the device
//!  finish()
//!   3 all shards become resident
//! ```

use core::fmt;
use std::io::Read;
use std::sync::Arc;

use vram_alloc::{ModelPlan, Piece};
use vram_files::Watch;
use vram_seal::Protection;

use crate::error::VramError;
use crate::models::admit::{
    arrive, begin_placing, choose, name_shards, numbered, place_all, place_piece,
};
use crate::models::{AdmitRequest, ModelHandle, Placed};
use crate::moves::{ImportRequest, import};
use crate::parts::Core;
use crate::parts::call::Call;
use crate::sealing::entry::Ready;
use crate::shard::Admitted;

/// A model whose images are being imported. Nothing of it is resident before
/// [`finish`](Self::finish); dropping it returns all memory that it took, wiped.
#[must_use = "nothing is resident before `finish`"]
pub struct ModelImport<'a> {
    core: &'a Core,
    request: AdmitRequest<'a>,
    sealed: Protection,
    watch: Watch<'a>,
    model: Arc<Admitted>,
    /// The places of the pieces whose images have not been read; `None` after an import into it
    /// failed.
    places: Vec<Option<Placed>>,
    ready: Vec<Ready>,
}

/// Takes room for every piece of a plan. The number of a piece's file is the shard number of its image.
pub fn begin<'a>(
    core: &'a Core,
    mut request: AdmitRequest<'a>,
    plan: &ModelPlan,
    sealed: Protection,
) -> Result<ModelImport<'a>, VramError> {
    request.check()?;
    let watch = core::mem::take(&mut request.watch).begin(plan.total())?;
    let model = numbered(core, plan, &request.common);
    request.admitted = Some(Arc::clone(&model));
    let places = place_all(core, &request, plan)?.into_iter().map(Some).collect();
    name_shards(core, &model);
    Ok(ModelImport { core, request, sealed, watch, model, places, ready: Vec::new() })
}

impl ModelImport<'_> {
    /// The piece whose image [`import`](Self::import) takes next; `None` if all were imported.
    #[must_use]
    pub fn next_piece(&self) -> Option<&Piece> {
        self.model.plan.pieces().get(self.ready.len())
    }

    /// Imports the image of the next piece, as `VramManager::import` does for one shard. After an
    /// error the same piece is next, so that another source can be tried; the bytes of the failed
    /// attempt count in the progress.
    ///
    /// # Errors
    ///
    /// As `VramManager::import`; [`VramError::Config`] if the image has other content than the plan
    /// says, or if all images were imported.
    ///
    /// # Panics
    ///
    /// If the reader or the progress callback panics: with their payload.
    pub fn import(&mut self, mut image: impl Read + Send) -> Result<(), VramError> {
        let index = self.ready.len();
        let model = Arc::clone(&self.model);
        let Some(piece) = model.plan.pieces().get(index) else {
            return Err(VramError::config("all images of the model were imported"));
        };
        let placed = match self.places.get_mut(index).and_then(Option::take) {
            Some(placed) => placed,
            None => self.place(piece)?,
        };
        let Placed { space, counted } = placed;
        let mut request = self.request.pieces().request(index, piece, space.gpu().index);
        request.sealed_as.shard_index = u64::from(piece.file);
        let (gpu, len) = (request.gpu, piece.len);
        let request = ImportRequest::of_piece(request, self.sealed);
        let place = || Ok((space, counted));
        let work = || import::import_piece(self.core, request, &mut image, len, place, &self.watch);
        let ready = self.core.watched(Call::Import, None, Some(gpu), len.get(), work)?;
        self.ready.push(ready);
        Ok(())
    }

    /// Makes all shards resident, in one moment.
    ///
    /// # Errors
    ///
    /// [`VramError::Config`] if images are missing; [`VramError::DeviceLost`]. Nothing is resident
    /// then, and all memory was returned.
    ///
    /// # Panics
    ///
    /// If the progress callback panics; nothing is resident then.
    pub fn finish(self) -> Result<ModelHandle, VramError> {
        let Self { core, request, watch, model, ready, .. } = self;
        let pieces = model.plan.pieces().len();
        if ready.len() < pieces {
            let what = format!("{} of {pieces} images of the model were imported", ready.len());
            return Err(VramError::config(what));
        }
        watch.finish();
        arrive(core, &request, &model, ready)
    }

    fn place(&self, piece: &Piece) -> Result<Placed, VramError> {
        let gpus = choose(self.core, self.request.gpus)?;
        place_piece(self.core, piece, &begin_placing(&gpus))
    }
}

impl fmt::Debug for ModelImport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelImport")
            .field("imported", &self.ready.len())
            .field("pieces", &self.model.plan.pieces().len())
            .finish_non_exhaustive()
    }
}
