//! Whose an event is: model, owner, and the piece of the model.

use std::sync::Arc;

/// Whose the shard of an event is, or which model an event is about. Made once for a shard; its
/// events share it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Whose {
    /// The model that the shard was sealed as.
    pub model_id: Arc<str>,
    /// The owner, if the request named one.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub owner: Option<Arc<str>>,
    /// The number of the admission that brought the whole model, which no other model of the manager
    /// has; `None` for a shard that was sealed by itself.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub admission: Option<u64>,
    /// The piece of the model that the shard is; `None` for a shard that was sealed by itself, and
    /// for an event about the whole model.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub piece: Option<PieceName>,
}

/// The name of a piece of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct PieceName {
    /// The tensor.
    pub tensor: Box<str>,
    /// The part of the tensor, from 0.
    pub part: u32,
}

impl PieceName {
    /// A part of a tensor; part 0 of a tensor in one piece.
    #[must_use]
    pub fn new(tensor: &str, part: u32) -> Self {
        Self { tensor: tensor.into(), part }
    }
}

impl Whose {
    /// The shards of a model that are sealed one by one.
    #[must_use]
    pub const fn new(model_id: Arc<str>, owner: Option<Arc<str>>) -> Self {
        Self { model_id, owner, admission: None, piece: None }
    }

    /// Sets the number of the admission, and the piece.
    #[must_use]
    pub fn admitted(mut self, admission: u64, piece: Option<PieceName>) -> Self {
        (self.admission, self.piece) = (Some(admission), piece);
        self
    }

    /// The model, without the piece.
    #[must_use]
    pub fn model(&self) -> Self {
        Self { piece: None, ..self.clone() }
    }
}
