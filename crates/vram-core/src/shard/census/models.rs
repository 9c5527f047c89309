//! Which of the admitted models are whole, kept as a count for each.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::shard::Admitted;
use crate::sync::{Mutex, lock};

/// Where a shard of an admitted model is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lies {
    OnGpu,
    Parked,
    Restoring,
}

/// The number of admitted models, by what is there of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ModelCounts {
    /// Models of which every piece lies on a GPU.
    pub whole: u64,
    /// Models of which some pieces are gone, parked by themselves, or being restored.
    pub partial: u64,
    /// Models of which every piece is parked.
    pub parked: u64,
    /// Models that a call brings, moves or takes away now.
    pub under_way: u64,
}

/// The models of which a shard lies on a GPU, is parked or is being restored. Its lock is innermost.
#[derive(Debug, Default)]
pub(crate) struct Models(Mutex<BTreeMap<u64, Tally>>);

#[derive(Debug)]
struct Tally {
    model: Arc<Admitted>,
    on_gpu: usize,
    parked: usize,
    restoring: usize,
}

impl Tally {
    const fn of(&mut self, lies: Lies) -> &mut usize {
        match lies {
            Lies::OnGpu => &mut self.on_gpu,
            Lies::Parked => &mut self.parked,
            Lies::Restoring => &mut self.restoring,
        }
    }
}

impl Models {
    /// Counts a shard of the model at its new place, and no longer at the one before.
    pub(crate) fn went(&self, model: &Arc<Admitted>, before: Option<Lies>, after: Option<Lies>) {
        let mut models = lock(&self.0);
        let new = || Tally { model: Arc::clone(model), on_gpu: 0, parked: 0, restoring: 0 };
        let tally = models.entry(model.number).or_insert_with(new);
        if let Some(before) = before {
            let count = tally.of(before);
            *count = count.saturating_sub(1);
        }
        if let Some(after) = after {
            let count = tally.of(after);
            *count = count.saturating_add(1);
        }
        if tally.on_gpu == 0 && tally.parked == 0 && tally.restoring == 0 {
            models.remove(&model.number);
        }
    }

    pub(crate) fn counts(&self) -> ModelCounts {
        let mut counts = ModelCounts::default();
        for tally in lock(&self.0).values() {
            let pieces = tally.model.plan.pieces().len();
            let count = if tally.model.at_rest().is_none() {
                &mut counts.under_way
            } else if tally.on_gpu == pieces {
                &mut counts.whole
            } else if tally.parked == pieces {
                &mut counts.parked
            } else {
                &mut counts.partial
            };
            *count = count.saturating_add(1);
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use vram_alloc::{ByteLen, ModelPlan, Piece};

    use super::*;
    use crate::shard::HeldBy;

    #[test]
    fn a_model_is_whole_partial_or_parked_by_its_pieces_and_none_when_all_are_gone() {
        let piece = |name| Piece::new(name, 0, 0, ByteLen::new(1));
        let plan = ModelPlan::new([piece("a"), piece("b")]).unwrap();
        let holder = HeldBy { owner: None, model_id: "m".into() };
        let model = Arc::new(Admitted::new(0, plan, holder));
        let models = Models::default();
        let counts = || {
            let ModelCounts { whole, partial, parked, under_way } = models.counts();
            [whole, partial, parked, under_way]
        };
        let [gpu, host, back] = [Lies::OnGpu, Lies::Parked, Lies::Restoring].map(Some);
        for (before, after, expected) in [
            (None, gpu, [0, 1, 0, 0]),
            (None, gpu, [1, 0, 0, 0]),
            (gpu, host, [0, 1, 0, 0]),
            (gpu, host, [0, 0, 1, 0]),
            (host, None, [0, 1, 0, 0]),
            (host, None, [0; 4]),
            (None, back, [0, 1, 0, 0]),
            (None, back, [0, 1, 0, 0]),
            (back, None, [0, 1, 0, 0]),
            (back, None, [0; 4]),
        ] {
            models.went(&model, before, after);
            assert_eq!(counts(), expected);
        }
        models.went(&model, None, gpu);
        let call = model.begin();
        assert_eq!(counts(), [0, 0, 0, 1]);
        drop(call);
        assert_eq!(counts(), [0, 1, 0, 0]);
    }
}
