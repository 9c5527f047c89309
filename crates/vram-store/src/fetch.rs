//! Ranges of objects from several sources: tried again, timed, bounded, and never believed.

mod body;
mod range;
mod sources;
mod window;

pub(crate) use body::Body;
pub(crate) use range::{Answer, read_file, read_range, read_whole, tried};
pub(crate) use sources::{CallSource, Fetched, Sources};
pub(crate) use window::{Step, Window};
