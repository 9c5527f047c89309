//! What a call, and a reset, hold of a life while they run.

use std::sync::Arc;

use crate::life::Life;
use crate::sync::ThreadId;

/// A running call that touches a GPU's device. Dropping this value ends the call.
#[derive(Debug)]
pub struct LifePass {
    life: Arc<Life>,
    epoch: u64,
    thread: ThreadId,
}

/// The right to reset a device, until dropped. Only one thread holds it at a time.
#[derive(Debug)]
pub struct Claim {
    life: Arc<Life>,
}

impl LifePass {
    pub(crate) const fn new(life: Arc<Life>, epoch: u64, thread: ThreadId) -> Self {
        Self { life, epoch, thread }
    }

    /// The life that the call runs in.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl Claim {
    pub(crate) const fn new(life: Arc<Life>) -> Self {
        Self { life }
    }
}

impl Drop for LifePass {
    fn drop(&mut self) {
        self.life.end_call(self.thread);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.life.end_claim();
    }
}
