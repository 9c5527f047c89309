//! What others reuse: whether each library can be published, and on what terms its dependencies come.

pub(crate) mod deny;
mod license;
pub(crate) mod package;
