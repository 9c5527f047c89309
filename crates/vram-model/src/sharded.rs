//! The place of sharded models: `model.safetensors.index.json` and the files that it lists.
//!
//! The index reader will resolve such a file into its parts and check that each tensor is in the
//! file that the index names. Until it is here, the parts are given one by one to
//! [`plan`](crate::plan()), which refuses a tensor that two of them hold, and an index given in
//! place of a model is refused by name ([`Lookalike::Json`](crate::Lookalike::Json)).
