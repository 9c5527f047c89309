//! Shared memory of a block, with races between its barriers.

use super::Trap;
use super::instruction::Kernel;
use crate::code;
use crate::report::MisuseKind;

/// In a mark: the thread that did it, plus one. Above stands the number of the phase.
const THREAD_BITS: u32 = 11;
const THREADS: u32 = (1 << THREAD_BITS) - 1;
/// Several threads.
const MANY: u32 = THREADS;

/// Which thread wrote and which read a unit in this phase.
#[derive(Clone, Copy, Debug, Default)]
struct Marks {
    writer: u32,
    reader: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    bytes: Vec<u8>,
    variables: Vec<core::ops::Range<usize>>,
    grain: usize,
    marks: Vec<Marks>,
    phase: u32,
}

impl Shared {
    pub(super) fn new(kernel: &Kernel) -> Self {
        let len = kernel.shared.last().map_or(0, |last| last.end);
        Self {
            bytes: vec![0; len],
            variables: kernel.shared.clone(),
            grain: kernel.shared_grain,
            marks: vec![Marks::default(); len.div_ceil(kernel.shared_grain)],
            phase: 0,
        }
    }

    /// What a block finds is nothing to count on.
    pub(super) fn poison(&mut self, block: u64) {
        for (at, byte) in self.bytes.iter_mut().enumerate() {
            *byte = (at as u64).wrapping_mul(151).wrapping_add(block) as u8 ^ 0xA5;
        }
        self.next_phase();
    }

    /// All threads met at a barrier.
    pub(super) fn next_phase(&mut self) {
        self.phase += 1;
        if self.phase > u32::MAX >> THREAD_BITS {
            self.marks.fill(Marks::default());
            self.phase = 1;
        }
    }

    /// The first byte of a variable that is not zero.
    pub(super) fn first_set(&self) -> Option<usize> {
        self.variables.iter().cloned().flatten().find(|at| self.bytes[*at] != 0)
    }

    /// The bytes of an access by a thread.
    pub(super) fn access(
        &mut self,
        address: u64,
        len: usize,
        thread: u32,
        writes: bool,
    ) -> Result<&mut [u8], Trap> {
        let at = usize::try_from(address).unwrap_or(usize::MAX);
        let inside = |range: &core::ops::Range<usize>| range.contains(&at) && len <= range.end - at;
        if !self.variables.iter().any(inside) {
            return Err(Trap {
                code: code::ILLEGAL_ADDRESS,
                kind: MisuseKind::OutOfBounds,
                detail: format!("{len} bytes of shared memory at {address:#x} are of no variable"),
            });
        }
        for unit in at / self.grain..(at + len).div_ceil(self.grain) {
            let marks = &mut self.marks[unit];
            let mine = self.phase << THREAD_BITS | (thread + 1);
            let by = |mark: u32| if mark >> THREAD_BITS == self.phase { mark & THREADS } else { 0 };
            let (wrote, read) = (by(marks.writer), by(marks.reader));
            let other = |by: u32| by != 0 && by != thread + 1;
            if other(wrote) || writes && other(read) {
                let rival = if other(wrote) { wrote } else { read };
                let rival = match rival {
                    MANY => "several threads".to_owned(),
                    rival => format!("thread {}", rival - 1),
                };
                return Err(Trap {
                    code: code::LAUNCH_FAILED,
                    kind: MisuseKind::Race,
                    detail: format!(
                        "shared byte {:#x} was used by {rival} since the last barrier",
                        unit * self.grain
                    ),
                });
            }
            if writes {
                marks.writer = mine;
            } else {
                marks.reader = if other(read) { mine | MANY } else { mine };
            }
        }
        Ok(&mut self.bytes[at..at + len])
    }
}
