//! What belongs to a space until a shard lies there.

use std::sync::Arc;

use crate::life::pass::LifePass;
use crate::space::Origin;

/// The call that fills a space, and the reservation that the space was taken from. A space in which a
/// shard lies has neither, as most have: then they take one word.
#[derive(Debug, Default)]
pub(super) struct Filling(Option<Box<Parts>>);

#[derive(Debug, Default)]
struct Parts {
    /// Held from before the first write until a shard lies there.
    pass: Option<Arc<LifePass>>,
    /// The reservation that the space returns to unless it is kept.
    origin: Option<Box<dyn Origin>>,
}

impl Filling {
    pub(super) fn pass(&self) -> Option<&Arc<LifePass>> {
        self.0.as_ref()?.pass.as_ref()
    }

    pub(super) fn set_pass(&mut self, pass: Arc<LifePass>) {
        self.0.get_or_insert_default().pass = Some(pass);
    }

    pub(super) fn take_pass(&mut self) -> Option<Arc<LifePass>> {
        self.take(|parts| parts.pass.take())
    }

    pub(super) fn origin(&self) -> Option<&dyn Origin> {
        self.0.as_ref()?.origin.as_deref()
    }

    pub(super) fn set_origin(&mut self, origin: Box<dyn Origin>) {
        self.0.get_or_insert_default().origin = Some(origin);
    }

    pub(super) fn take_origin(&mut self) -> Option<Box<dyn Origin>> {
        self.take(|parts| parts.origin.take())
    }

    /// Takes one part out, and the box once it is empty.
    fn take<T>(&mut self, take: impl FnOnce(&mut Parts) -> Option<T>) -> Option<T> {
        let parts = self.0.as_deref_mut()?;
        let taken = take(parts);
        if parts.pass.is_none() && parts.origin.is_none() {
            self.0 = None;
        }
        taken
    }
}
