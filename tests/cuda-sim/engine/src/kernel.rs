//! Kernels by name: the image declares them. Its PTX is run, or a registered host function instead.

use core::fmt;

use crate::code;
use crate::ptx::{self, Damage, Global, Kernel, Rules};
use crate::shape::LaunchShape;
use crate::world::World;

/// A kernel's body. It gets the launch, reads and writes device memory through it, and returns
/// `Err` with a driver code to fail the launch.
///
/// It runs once per launch, for the whole grid, under the simulator's lock: it must not call the
/// driver or the simulator.
pub type KernelBody = dyn Fn(&mut Launch<'_>) -> Result<(), u32> + Send + Sync;

/// The interface of one launch for the kernel's body.
pub struct Launch<'w> {
    world: &'w mut World,
    context: u64,
    call: &'static str,
    shape: LaunchShape,
    parameters: &'w [Vec<u8>],
    damage: Option<Damage>,
}

impl fmt::Debug for Launch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launch").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl<'w> Launch<'w> {
    pub(crate) const fn new(
        world: &'w mut World,
        context: u64,
        call: &'static str,
        shape: LaunchShape,
        parameters: &'w [Vec<u8>],
        damage: Option<Damage>,
    ) -> Self {
        Self { world, context, call, shape, parameters, damage }
    }

    /// Grid, block and shared memory.
    #[must_use]
    pub const fn shape(&self) -> LaunchShape {
        self.shape
    }

    /// The bytes of a parameter, if the kernel has that many.
    #[must_use]
    pub fn parameter(&self, index: usize) -> Option<&[u8]> {
        self.parameters.get(index).map(Vec::as_slice)
    }

    /// A parameter of 8 bytes.
    ///
    /// # Errors
    ///
    /// The code of a failed launch (719) if there is no such parameter or it has another size.
    pub fn u64(&self, index: usize) -> Result<u64, u32> {
        let bytes = self.parameter(index).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u64::from_le_bytes).ok_or(code::LAUNCH_FAILED)
    }

    /// A parameter of 4 bytes.
    ///
    /// # Errors
    ///
    /// As [`Self::u64`].
    pub fn u32(&self, index: usize) -> Result<u32, u32> {
        let bytes = self.parameter(index).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_le_bytes).ok_or(code::LAUNCH_FAILED)
    }

    /// Reads device memory.
    ///
    /// # Errors
    ///
    /// The code of an illegal address (700) if the range is not inside one live allocation of this
    /// device, or of a peer whose access was enabled.
    pub fn read(&mut self, address: u64, len: usize) -> Result<Vec<u8>, u32> {
        let mut bytes = vec![0; len];
        if len > 0 {
            let ordinal = self.reach(address, len)?;
            if let Some(device) = self.world.device(ordinal) {
                device.memory.read(address, &mut bytes);
            }
        }
        Ok(bytes)
    }

    /// Writes device memory.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), u32> {
        if !bytes.is_empty() {
            let ordinal = self.reach(address, bytes.len())?;
            if let Some(device) = self.world.device_mut(ordinal) {
                device.memory.write(address, bytes);
            }
        }
        Ok(())
    }

    /// Runs a kernel as its PTX says. What a real card would not tell goes to the misuse log too.
    pub(crate) fn interpret(&mut self, kernel: &Kernel) -> Result<(), u32> {
        let ordinal = self.world.device_of(self.context).ok_or(code::INVALID_CONTEXT)?;
        let device = self.world.device_mut(ordinal).ok_or(code::INVALID_DEVICE)?;
        let mut global = Global::new(&mut device.memory, self.damage);
        let rules = Rules {
            step_limit: device.step_limit,
            zero_shared: device.zero_shared.contains(&kernel.name),
        };
        let outcome = ptx::run(kernel, self.shape, self.parameters, rules, &mut global);
        global.finish();
        outcome.map_err(|trap| {
            self.world.note(trap.kind, Some(ordinal), self.call, trap.detail);
            trap.code
        })
    }

    fn reach(&mut self, address: u64, len: usize) -> Result<u32, u32> {
        let len = crate::memory::wide(len);
        let outside = |_| code::ILLEGAL_ADDRESS;
        let ordinal =
            self.world.check_range(self.context, self.call, address, len).map_err(outside)?;
        let context = self.world.contexts.get(&self.context).ok_or(code::ILLEGAL_ADDRESS)?;
        let enabled = |peer: &u64| self.world.device_of(*peer) == Some(ordinal);
        if context.device == ordinal || context.peers.iter().any(enabled) {
            Ok(ordinal)
        } else {
            Err(code::ILLEGAL_ADDRESS)
        }
    }
}
