//! A build without the library: never an answer, with the build as the reason.

use core::convert::Infallible;
use std::path::Path;

use vram_alloc::DeviceUuid;

use super::{NoLibrary, XidReceiver};
use crate::card::CardHealth;

/// No value of it exists.
#[derive(Debug)]
pub(crate) struct Library(Infallible);

impl Library {
    pub(crate) const BUILT: bool = false;

    pub(crate) fn open(_named: Option<&Path>) -> Result<Self, NoLibrary> {
        Err(NoLibrary::NotBuilt)
    }

    pub(crate) fn driver(&self) -> Result<String, String> {
        match self.0 {}
    }

    pub(crate) fn read(&self, _card: DeviceUuid) -> Result<CardHealth, String> {
        match self.0 {}
    }

    pub(crate) fn watch(&self, _cards: &[DeviceUuid], _receiver: &impl XidReceiver) {
        match self.0 {}
    }
}
