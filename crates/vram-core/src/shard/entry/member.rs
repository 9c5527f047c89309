//! The model that a shard was admitted with.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use vram_alloc::{ByteLen, ModelPlan, Piece, TensorFormat};
use vram_events::{PieceName, Whose};
use vram_id::ShardId;

/// Whose shards they are: an owner and a model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HeldBy {
    pub(crate) owner: Option<Arc<str>>,
    pub(crate) model_id: Arc<str>,
}

/// A model that was admitted as a whole. It stays the same model while it is parked, woken, moved
/// and restored.
#[derive(Debug)]
pub(crate) struct Admitted {
    /// Unique among the models of one manager; a model that was admitted earlier has a lower one.
    pub(crate) number: u64,
    pub(crate) plan: ModelPlan,
    pub(crate) holder: HeldBy,
    /// The shards, in the order of the plan. Set before any of them is sealed.
    shards: OnceLock<Vec<ShardId>>,
    /// Calls that bring, move or take away the whole model now.
    under_way: AtomicU64,
    /// Those of them that end with one event of the model.
    told_as_one: AtomicU64,
    /// How often such a call began.
    begun: AtomicU64,
}

/// A shard's place in its model.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) model: Arc<Admitted>,
    /// The index of the piece in the plan.
    pub(crate) index: usize,
}

/// Whose a shard is.
#[derive(Clone, Debug)]
pub(crate) enum Of {
    /// It was sealed by itself, for this holder.
    Alone(Arc<HeldBy>),
    /// It was admitted with a model, whose holder is its own.
    Piece(Member),
}

/// While this lives, a call brings, moves or takes away the whole model: that not all shards are in
/// the same state is no fault.
#[derive(Debug)]
#[must_use = "the call ends when this is dropped"]
pub(crate) struct UnderWay {
    model: Arc<Admitted>,
    told_as_one: bool,
}

impl Admitted {
    pub(crate) const fn new(number: u64, plan: ModelPlan, holder: HeldBy) -> Self {
        let [under_way, told_as_one, begun] = [const { AtomicU64::new(0) }; 3];
        Self { number, plan, holder, shards: OnceLock::new(), under_way, told_as_one, begun }
    }

    /// Names the shards, in the order of the plan.
    pub(crate) fn consists_of(&self, shards: Vec<ShardId>) {
        let _once = self.shards.set(shards);
    }

    /// The shards, in the order of the plan; none before the model is being sealed.
    pub(crate) fn shards(&self) -> &[ShardId] {
        self.shards.get().map_or(&[], Vec::as_slice)
    }

    /// Begins a call that ends with one event of the model, if it does something.
    pub(crate) fn begin(self: &Arc<Self>) -> UnderWay {
        self.told_as_one.fetch_add(1, Ordering::SeqCst);
        let mut call = self.hold();
        call.told_as_one = true;
        call
    }

    /// Begins a call whose steps are told shard by shard.
    pub(crate) fn hold(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        self.begun.fetch_add(1, Ordering::SeqCst);
        UnderWay { model: Arc::clone(self), told_as_one: false }
    }

    /// Whether the call that runs now ends with one event of the model.
    pub(crate) fn is_told_as_one(&self) -> bool {
        self.told_as_one.load(Ordering::SeqCst) > 0
    }

    /// Whether exactly one call on the whole model runs now: that of the caller.
    pub(crate) fn has_one_call(&self) -> bool {
        self.under_way.load(Ordering::SeqCst) == 1
    }

    /// The number of calls on the whole model that began so far; `None` while one runs. Where it is
    /// the same before and after a look at the shards, no such call ran meanwhile.
    pub(crate) fn at_rest(&self) -> Option<u64> {
        let begun = self.begun.load(Ordering::SeqCst);
        (self.under_way.load(Ordering::SeqCst) == 0).then_some(begun)
    }
}

impl Member {
    /// The id of the shard, unless it was not named yet.
    pub(crate) fn shard(&self) -> Option<&ShardId> {
        self.model.shards().get(self.index)
    }

    /// The piece of the plan that the shard is.
    pub(crate) fn piece(&self) -> Option<&Piece> {
        self.model.plan.pieces().get(self.index)
    }

    /// The description of the content that the seal is bound to.
    pub(crate) fn described(&self) -> Vec<u8> {
        self.piece().map(describe).unwrap_or_default()
    }
}

const DOMAIN: &[u8] = b"vram-piece/0001\0";

/// A piece as bytes, the same for the same tensor wherever it lies in its file: a domain, then each
/// text after its length and each number in little endian.
pub(crate) fn describe(piece: &Piece) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(described_len(piece));
    bytes.extend_from_slice(DOMAIN);
    for text in [&piece.name, format_name(piece)] {
        bytes.extend_from_slice(&ByteLen::from_usize(text.len()).get().to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes.extend_from_slice(&piece.part.to_le_bytes());
    bytes.extend_from_slice(&piece.part_count.to_le_bytes());
    for extent in &piece.shape {
        bytes.extend_from_slice(&extent.to_le_bytes());
    }
    bytes
}

/// The length of what [`describe`] makes of a piece.
pub(crate) fn described_len(piece: &Piece) -> usize {
    let texts = [DOMAIN.len(), piece.name.len(), format_name(piece).len()];
    let numbers = [size_of_val(&piece.part), size_of_val(&piece.part_count)];
    let lens = size_of::<[u64; 2]>();
    let parts = texts.into_iter().chain(numbers).chain([lens]);
    parts.fold(size_of_val(&*piece.shape), usize::saturating_add)
}

fn format_name(piece: &Piece) -> &'static str {
    piece.format.map_or("", TensorFormat::name)
}

impl Of {
    pub(crate) fn holder(&self) -> &HeldBy {
        match self {
            Self::Alone(holder) => holder,
            Self::Piece(member) => &member.model.holder,
        }
    }

    pub(crate) const fn member(&self) -> Option<&Member> {
        match self {
            Self::Alone(_) => None,
            Self::Piece(member) => Some(member),
        }
    }

    /// The name of the piece of its model that the shard is.
    pub(crate) fn piece_name(&self) -> Option<PieceName> {
        let piece = self.member()?.piece()?;
        Some(PieceName::new(&piece.name, piece.part))
    }

    /// Whose the shard is, as its events say.
    pub(crate) fn whose(&self) -> Whose {
        let HeldBy { owner, model_id } = self.holder().clone();
        let whose = Whose::new(model_id, owner);
        let Some(member) = self.member() else { return whose };
        whose.admitted(member.model.number, self.piece_name())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if self.told_as_one {
            self.model.told_as_one.fetch_sub(1, Ordering::SeqCst);
        }
        self.model.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use vram_alloc::Dtype;

    use super::*;

    #[test]
    fn the_length_of_a_description_is_known_before_it_is_made() {
        let plain = Piece::new("a tensor", 0, 0, ByteLen::new(1));
        let mut typed = Piece::new("", 0, 0, ByteLen::new(96));
        typed.format = Some(TensorFormat::Plain(Dtype::F32));
        typed.shape = vec![2, 3, 4];
        for piece in [plain, typed] {
            assert_eq!(describe(&piece).len(), described_len(&piece), "{piece:?}");
        }
    }
}
