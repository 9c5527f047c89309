//! One running driver call: the checks that nearly every driver function makes first.

use crate::code;
use crate::fault::{CallKind, Fault};
use crate::report::MisuseKind;
use crate::world::{World, thread_contexts};

/// See the module.
pub(crate) struct Call<'w> {
    pub(crate) world: &'w mut World,
    pub(crate) name: &'static str,
}

impl Call<'_> {
    pub(crate) fn note(&mut self, kind: MisuseKind, device: Option<u32>, detail: String) {
        self.world.note(kind, device, self.name, detail);
    }

    /// Checks that the driver was initialised.
    pub(crate) const fn ready(&self) -> Result<(), u32> {
        if self.world.initialized { Ok(()) } else { Err(code::NOT_INITIALIZED) }
    }

    /// The device of an ordinal.
    pub(crate) fn device(&self, ordinal: i32) -> Result<u32, u32> {
        self.ready()?;
        let ordinal = u32::try_from(ordinal).map_err(|_| code::INVALID_DEVICE)?;
        match self.world.device(ordinal) {
            Some(device) if !device.retired => Ok(ordinal),
            _ => Err(code::INVALID_DEVICE),
        }
    }

    /// The thread's current context, alive and not poisoned.
    ///
    /// Counts the call: from here on it is a call to the device, even if it is refused.
    pub(crate) fn context(&mut self) -> Result<u64, u32> {
        let id = self.bound_context()?;
        let ordinal = self.world.device_of(id);
        if let Some(device) = ordinal.and_then(|ordinal| self.world.device_mut(ordinal)) {
            device.faults.count_any();
            if let Some(code) = device.gone {
                return Err(code);
            }
        }
        match self.world.contexts.get(&id).and_then(|context| context.poisoned) {
            Some(code) => Err(code),
            None => Ok(id),
        }
    }

    /// The thread's current context, alive but perhaps poisoned.
    pub(crate) fn bound_context(&self) -> Result<u64, u32> {
        self.ready()?;
        let id = thread_contexts(|stack| stack.last().copied().unwrap_or(0));
        if id == 0 {
            return Err(code::INVALID_CONTEXT);
        }
        match self.world.contexts.get(&id) {
            Some(context) if context.active => Ok(id),
            _ => Err(code::CONTEXT_IS_DESTROYED),
        }
    }

    /// Counts a call of a context's device, and returns the fault for it, if any.
    pub(crate) fn meet(&mut self, context: u64, kind: CallKind) -> Option<Fault> {
        let device = self.world.device_of(context)?;
        let device = self.world.device_mut(device)?;
        device.gone.map(Fault::Fail).or_else(|| device.faults.meet(kind))
    }

    /// As [`Self::meet`], for calls that queue nothing: a late failure happens now, and there are
    /// no bytes to damage.
    pub(crate) fn meet_now(&mut self, context: u64, kind: CallKind) -> Result<(), u32> {
        match self.meet(context, kind) {
            Some(Fault::Fail(code) | Fault::FailLater(code)) => Err(self.world.fail(context, code)),
            _ => Ok(()),
        }
    }

    /// The context of a call that queues nothing: current and not poisoned. Counts the call and
    /// applies its fault.
    pub(crate) fn plain(&mut self, kind: CallKind) -> Result<u64, u32> {
        let context = self.context()?;
        self.meet_now(context, kind)?;
        Ok(context)
    }
}
