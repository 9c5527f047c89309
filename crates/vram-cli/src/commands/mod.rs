//! What each command of the program does.

pub(crate) mod demo;
pub(crate) mod devices;
pub(crate) mod image;
pub(crate) mod inspect;
pub(crate) mod keys;
pub(crate) mod load;
mod load_images;
mod model_info;
pub(crate) mod results;
pub(crate) mod serve;
pub(crate) mod store;
pub(crate) mod verify;
