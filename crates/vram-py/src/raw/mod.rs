//! C structures that point into device memory: all `unsafe` of this crate.
//!
//! What is handed out owns a clone of an [`Arc`](std::sync::Arc) of the view, and points to the bytes
//! and to the shape in it. The lease in the view keeps the bytes where they are; the shape is never
//! changed. So a pointer is good as long as what was handed out.

pub(crate) mod buffer;
pub(crate) mod dlpack;
