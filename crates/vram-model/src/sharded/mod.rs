//! Models in several files: a folder, an index, a set of files that count themselves.

mod check;
mod folder;
mod index;
mod names;
mod problem;
mod set;

pub use self::problem::{FolderProblem, IndexProblem};
pub use self::set::ModelSet;
