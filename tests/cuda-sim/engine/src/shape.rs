//! How many blocks and threads a launch has.

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
