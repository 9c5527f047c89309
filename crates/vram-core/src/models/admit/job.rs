//! Seals the pieces of a model into their places: small ones that lie side by side together.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use vram_alloc::Piece;
use vram_files::Watch;
use vram_seal::SealParams;
use vram_space::{Lanes, Space, Span};

use crate::error::VramError;
use crate::models::admit::Placed;
use crate::models::request::Pieces;
use crate::models::{AdmitRequest, ModelSource, PieceSource};
use crate::parts::Core;
use crate::sealing::entry::Ready;
use crate::sealing::{batch, stream};
use crate::transfer::SourceFeed;

/// The sealing of all pieces.
pub(crate) struct Job<'a, 'w> {
    core: &'a Core,
    pieces: Pieces<'a>,
    model_id: &'a str,
    /// Those of every piece.
    params: SealParams,
    source: &'a dyn ModelSource,
    watch: &'a Watch<'w>,
}

/// A piece and its place.
type Work<'a> = (&'a Piece, Placed);

impl<'a, 'w> Job<'a, 'w> {
    pub(crate) fn new(
        core: &'a Core,
        request: &'a AdmitRequest<'_>,
        source: &'a dyn ModelSource,
        watch: &'a Watch<'w>,
    ) -> Self {
        let params = request.common.params(core.defaults);
        let model_id = &request.common.sealed_as.model_id;
        Self { core, pieces: request.pieces(), model_id, params, source, watch }
    }

    /// Seals a run of pieces, of which `first` is the number of the first. Begins none once `stop` is
    /// set: then there are fewer results.
    pub(crate) fn seal(
        &self,
        first: usize,
        run: Vec<Work<'_>>,
        stop: &AtomicBool,
    ) -> Result<Vec<Ready>, VramError> {
        let mut ready = Vec::with_capacity(run.len());
        let mut together = Together::default();
        for (index, work) in (first..).zip(run) {
            let span = batch::joins(&work.1.space, self.params);
            if let Some(wider) = together.wider(&work.1.space, span) {
                together.span = Some(wider);
            } else {
                let next = Together { first: index, works: Vec::new(), span };
                let before = core::mem::replace(&mut together, next);
                self.seal_together(before, stop, &mut ready)?;
            }
            together.works.push(work);
        }
        self.seal_together(together, stop, &mut ready)?;
        Ok(ready)
    }

    /// Seals pieces in one batch if there are several and memory to stage them in, else each by itself.
    fn seal_together(
        &self,
        together: Together<'_>,
        stop: &AtomicBool,
        ready: &mut Vec<Ready>,
    ) -> Result<(), VramError> {
        let Together { first, works, span } = together;
        if works.len() > 1
            && !stop.load(Ordering::Relaxed)
            && let Some(span) = span
            && let Some(gpu) = works.first().map(|(_, placed)| placed.space.gpu().clone())
            // Other calls hold the staging memory: each piece needs less.
            && let Ok(lanes) = span.lanes(&gpu)
        {
            ready.extend(self.seal_batch(first, works, lanes)?);
            return Ok(());
        }
        for (index, work) in (first..).zip(works) {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            ready.push(self.seal_one(index, work)?);
        }
        Ok(())
    }

    fn seal_batch(
        &self,
        first: usize,
        works: Vec<Work<'_>>,
        lanes: Lanes<'_>,
    ) -> Result<Vec<Ready>, VramError> {
        let sources: Vec<_> =
            works.iter().map(|(piece, _)| PieceSource::new(self.source, piece)).collect();
        let members = (first..).zip(works).zip(&sources).map(|((index, work), source)| {
            let (piece, Placed { space, counted }) = work;
            let request = self.pieces.request(index, piece, space.gpu().index);
            let feed = SourceFeed::new(source, self.model_id);
            batch::Member { request, space, counted, feed }
        });
        let members = members.collect();
        batch::seal(self.core, members, lanes, self.watch).map_err(|failed| {
            self.failed(first.saturating_add(failed.at));
            failed.error
        })
    }

    fn seal_one(&self, index: usize, (piece, placed): Work<'_>) -> Result<Ready, VramError> {
        self.watch.go_on()?;
        let Placed { space, counted } = placed;
        let request = self.pieces.request(index, piece, space.gpu().index);
        let source = PieceSource::new(self.source, piece);
        let feed = SourceFeed::new(&source, self.model_id);
        let sealed =
            stream::seal_feed(self.core, &request, (space, counted), &feed, None, self.watch);
        sealed.inspect_err(|_error| self.failed(index))
    }

    /// Tells the caller at which piece sealing failed.
    fn failed(&self, index: usize) {
        let _first = self.pieces.failed_at.map(|failed| failed.set(index));
    }
}

/// Consecutive pieces whose places lie side by side, or one piece.
#[derive(Default)]
struct Together<'a> {
    /// The number of the first.
    first: usize,
    works: Vec<Work<'a>>,
    /// Where they lie, if others may be sealed with them.
    span: Option<Span>,
}

impl Together<'_> {
    /// Where they lie with another, if that is sealed with them.
    fn wider(&self, space: &Space, span: Option<Span>) -> Option<Span> {
        let (_, last) = self.works.last()?;
        let wider = self.span?.joined(span?, space.gpu())?;
        Arc::ptr_eq(last.space.gpu(), space.gpu()).then_some(wider)
    }
}
