//! What each command of the program does.

pub(crate) mod demo;
pub(crate) mod devices;
pub(crate) mod image;
pub(crate) mod inspect;
pub(crate) mod keys;
pub(crate) mod load;
mod load_images;
pub(crate) mod operator;
pub(crate) mod plan;
pub(crate) mod results;
pub(crate) mod serve;
pub(crate) mod store;
pub(crate) mod verify;
