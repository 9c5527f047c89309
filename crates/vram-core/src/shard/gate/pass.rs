//! Use of a gate, until dropped.

use core::marker::PhantomData;

use crate::shard::gate::Gate;
use crate::shard::gate::held::{self, Use};
use crate::sync::lock;

/// Shared use, until dropped. Bound to its thread, because the rule on re-entrance is about
/// threads.
#[derive(Debug)]
pub(crate) struct SharedPass<'a> {
    #[expect(dead_code, reason = "held for its drop")]
    pub(super) inside: Inside<'a>,
}

/// Exclusive use, until dropped. Bound to its thread.
#[derive(Debug)]
pub(crate) struct ExclusivePass<'a> {
    #[expect(dead_code, reason = "held for its drop")]
    pub(super) inside: Inside<'a>,
}

#[derive(Debug)]
pub(super) struct Inside<'a> {
    gate: &'a Gate,
    kind: Use,
    bound_to_thread: PhantomData<*const ()>,
}

impl<'a> Inside<'a> {
    /// The state of the gate counts this use already.
    pub(super) fn new(gate: &'a Gate, kind: Use) -> Self {
        held::enter(gate.address(), kind);
        Self { gate, kind, bound_to_thread: PhantomData }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        held::leave(self.gate.address(), self.kind);
        let mut state = lock(&self.gate.state);
        match self.kind {
            Use::Shared => state.shared = state.shared.saturating_sub(1),
            Use::Exclusive => state.exclusive = false,
        }
        drop(state);
        self.gate.changed.notify_all();
    }
}
