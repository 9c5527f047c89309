//! Sealing one shard, segment by segment.

pub(crate) mod collector;
pub(crate) mod elsewhere;
pub(crate) mod sealer;
