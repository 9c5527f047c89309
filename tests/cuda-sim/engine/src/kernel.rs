//! Kernels by name: the image declares them, and a registered host function is their body.

use core::fmt;

use crate::code;
use crate::world::World;

/// A kernel's body. It gets the launch, reads and writes device memory through it, and returns
/// `Err` with a driver code to fail the launch.
///
/// It runs once per launch, for the whole grid, under the simulator's lock: it must not call the
/// driver or the simulator.
pub type KernelBody = dyn Fn(&mut Launch<'_>) -> Result<(), u32> + Send + Sync;

/// Grid and block dimensions of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaunchShape {
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y and z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared_len: u32,
}

impl LaunchShape {
    pub(crate) const fn new(grid: [u32; 3], block: [u32; 3], shared_len: u32) -> Self {
        Self { grid, block, shared_len }
    }

    /// The number of threads in the whole launch: blocks times threads.
    #[must_use]
    pub fn thread_count(&self) -> u64 {
        self.grid
            .iter()
            .chain(&self.block)
            .fold(1, |count: u64, dimension| count.saturating_mul(u64::from(*dimension)))
    }
}

/// The interface of one launch for the kernel's body.
pub struct Launch<'w> {
    world: &'w mut World,
    context: u64,
    call: &'static str,
    shape: LaunchShape,
    parameters: &'w [Vec<u8>],
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
    ) -> Self {
        Self { world, context, call, shape, parameters }
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

/// A kernel that an image declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// Bytes of each parameter.
    pub(crate) parameters: Vec<usize>,
}

/// Reads the kernels that PTX text declares, for a device of this compute capability (major × 10 +
/// minor).
pub(crate) fn read_image(text: &str, capability: u32) -> Result<Vec<Entry>, u32> {
    if !text.contains(".version") {
        return Err(code::INVALID_PTX);
    }
    let target = text.split_once(".target").ok_or(code::INVALID_PTX)?.1.trim_start();
    let digits: String = target
        .strip_prefix("sm_")
        .ok_or(code::INVALID_PTX)?
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    if digits.parse::<u32>().map_err(|_| code::INVALID_PTX)? > capability {
        return Err(code::NO_BINARY_FOR_GPU);
    }
    text.split(".entry").skip(1).map(read_entry).collect()
}

/// Reads ` name(.param .u64 a, .param .align 8 .b8 b[16]) …`.
fn read_entry(text: &str) -> Result<Entry, u32> {
    let name: String = text
        .trim_start()
        .chars()
        .take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '$' | '%'))
        .collect();
    let rest = text.trim_start().strip_prefix(name.as_str()).ok_or(code::INVALID_PTX)?.trim_start();
    if name.is_empty() {
        return Err(code::INVALID_PTX);
    }
    let Some(list) = rest.strip_prefix('(') else {
        return Ok(Entry { name, parameters: Vec::new() });
    };
    let (list, _) = list.split_once(')').ok_or(code::INVALID_PTX)?;
    let parameters = list
        .split(',')
        .map(str::trim)
        .filter(|parameter| !parameter.is_empty())
        .map(|parameter| parameter_len(parameter).ok_or(code::INVALID_PTX))
        .collect::<Result<_, _>>()?;
    Ok(Entry { name, parameters })
}

fn parameter_len(parameter: &str) -> Option<usize> {
    let kind = parameter.split_whitespace().find(|word| {
        let mut chars = word.chars().skip(1);
        word.starts_with('.')
            && chars.next().is_some_and(|c| matches!(c, 'u' | 's' | 'b' | 'f'))
            && chars.all(|c| c.is_ascii_digit())
    })?;
    let bits: usize = kind.get(2..)?.parse().ok()?;
    let count = match parameter.split_once('[') {
        Some((_, rest)) => rest.split_once(']')?.0.trim().parse().ok()?,
        None => 1_usize,
    };
    (bits / 8).checked_mul(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: &str = "
        .version 6.0
        .target sm_70
        .address_size 64
        .visible .entry add(
            .param .u64 add_param_0,
            .param .u32 add_param_1,
            .param .align 8 .b8 add_param_2[24]
        )
        { ret; }
        .entry nothing() { ret; }";

    #[test]
    fn an_image_declares_its_kernels_and_their_parameters() {
        let entries = read_image(IMAGE, 90).unwrap();
        let named = |name: &str, parameters: &[usize]| Entry {
            name: name.to_owned(),
            parameters: parameters.to_vec(),
        };
        assert_eq!(entries, [named("add", &[8, 4, 24]), named("nothing", &[])]);
    }

    #[test]
    fn an_image_that_is_no_ptx_or_for_a_newer_card_is_refused() {
        assert_eq!(read_image("", 90), Err(code::INVALID_PTX));
        assert_eq!(read_image("\u{7f}ELF", 90), Err(code::INVALID_PTX));
        assert_eq!(read_image(IMAGE, 61), Err(code::NO_BINARY_FOR_GPU));
        assert_eq!(read_image(".version 6.0 .target sm_70 .entry a(b", 90), Err(code::INVALID_PTX));
    }
}
