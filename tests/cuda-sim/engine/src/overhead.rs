//! Device memory that a driver takes for itself, at the first use of what needs it.
//!
//! The rules follow what an H100 showed (`docs/gpu-evidence.md`): 2 streams took 2 MiB, 8 took
//! 4 MiB, 32 took 16 MiB; a page lock of 1 GiB took 2 MiB, for entries of 8 bytes to a page.

use std::collections::BTreeSet;

use crate::call::Call;
use crate::code;
use crate::memory::wide;
use crate::world::World;

/// Streams whose channels share one step of memory.
const STREAMS_A_STEP: u64 = 4;
/// Locked bytes for each byte of their page table: 8 bytes for a page of 4096.
const LOCKED_A_BYTE: u64 = 512;

/// What a context has needed so far. A driver keeps that memory until the context is gone.
#[derive(Debug, Default)]
pub(crate) struct Needed {
    /// The most streams at once.
    streams: u64,
    /// The most page-locked bytes at once.
    locked: u64,
    /// Code of the driver's own that was loaded, such as that of a fill.
    code: BTreeSet<&'static str>,
}

impl Needed {
    /// The memory for it, in whole steps.
    pub(crate) fn taken(&self, step: u64) -> u64 {
        if step == 0 {
            return 0;
        }
        let tables = self.locked.div_ceil(LOCKED_A_BYTE).div_ceil(step);
        let steps = self.streams.div_ceil(STREAMS_A_STEP).saturating_add(tables);
        steps.saturating_add(wide(self.code.len())).saturating_mul(step)
    }
}

impl Call<'_> {
    /// Takes memory for one more stream of a context.
    pub(crate) fn need_stream(&mut self, context: u64) -> Result<(), u32> {
        let live = self.world.streams.values();
        let live = live.filter(|stream| stream.context == context && !stream.is_default);
        let now = wide(live.count()).saturating_add(1);
        self.world.need(context, |needed| needed.streams = needed.streams.max(now))
    }

    /// Takes memory for the page table of locked host memory.
    pub(crate) fn need_lock(&mut self, context: u64, len: usize) -> Result<(), u32> {
        let locked = self.world.hosts.values().filter(|block| block.context == context);
        let now = locked.fold(wide(len), |sum, block| sum.saturating_add(wide(block.len)));
        self.world.need(context, |needed| needed.locked = needed.locked.max(now))
    }

    /// Takes memory for code of the driver's own.
    pub(crate) fn need_code(&mut self, context: u64, code: &'static str) -> Result<(), u32> {
        self.world.need(context, |needed| _ = needed.code.insert(code))
    }
}

impl World {
    /// Notes what a context needs, if there is room for it.
    fn need(&mut self, context: u64, note: impl FnOnce(&mut Needed)) -> Result<(), u32> {
        let Some(ordinal) = self.device_of(context) else { return Ok(()) };
        let step = self.device(ordinal).map_or(0, |device| device.spec.overhead);
        if step == 0 {
            return Ok(());
        }
        let room = self.room(ordinal);
        let Some(state) = self.contexts.get_mut(&context) else { return Ok(()) };
        let before = Needed { code: state.needed.code.clone(), ..state.needed };
        note(&mut state.needed);
        if state.needed.taken(step).saturating_sub(before.taken(step)) > room {
            state.needed = before;
            return Err(code::OUT_OF_MEMORY);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_locks_and_code_take_whole_steps_as_on_a_real_card() {
        const STEP: u64 = 2 << 20;
        let of = |streams, locked, code: &[&'static str]| {
            Needed { streams, locked, code: code.iter().copied().collect() }.taken(STEP) / STEP
        };
        assert_eq!([of(0, 0, &[]), of(2, 0, &[]), of(8, 0, &[]), of(32, 0, &[])], [0, 1, 2, 8]);
        assert_eq!([of(0, 1, &[]), of(0, 1 << 30, &[]), of(0, (1 << 30) + 1, &[])], [1, 1, 2]);
        assert_eq!(of(1, 1, &["fill", "copy"]), 4);
        assert_eq!(Needed { streams: 9, ..Needed::default() }.taken(0), 0, "no overhead at all");
    }
}
