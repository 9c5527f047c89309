//! Shared reference model.
