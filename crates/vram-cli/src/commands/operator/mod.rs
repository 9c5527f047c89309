//! Commands for those who run the program: a page to look at, a burn-in, figures, completions, man pages.

pub(crate) mod bench;
pub(crate) mod manual;
pub(crate) mod soak;
pub(crate) mod view;
pub(crate) mod written;
