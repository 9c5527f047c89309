//! Placeholder for sharded models: `model.safetensors.index.json` and the files that it lists.
//!
//! An index reader will resolve such a file into its parts and check that each tensor is in the
//! file that the index names. Until then, callers pass the parts to [`plan`](crate::plan()), which
//! refuses a tensor that two of them contain. An index passed as a model is refused with an error
//! that names it ([`Lookalike::Index`](crate::Lookalike::Index)).
