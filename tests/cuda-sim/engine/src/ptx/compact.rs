//! Fewer registers. PTX names a new register for every value, thousands of them; most live within a few
//! lines of one basic block. Those share slots here, so that a warp's registers stay in a cache.

use super::instruction::{Bank, Guard, Kernel, Work};

/// Where a register is used.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Home {
    Nowhere,
    /// Written first, and used in this basic block alone; and its last use.
    Block(usize, usize),
    /// Everything else, constants among them.
    Kept,
}

/// Renumbers words and doubles.
pub(super) fn compact(kernel: &mut Kernel) {
    let blocks = blocks(kernel);
    let mut homes =
        [vec![Home::Nowhere; kernel.words.len()], vec![Home::Nowhere; kernel.doubles.len()]];
    for (at, instruction) in kernel.code.iter_mut().enumerate() {
        let block = blocks[at];
        instruction.registers(&mut |bank, register, writes| {
            let Some(homes) = of(&mut homes, bank) else { return };
            let home = &mut homes[*register as usize];
            *home = match *home {
                Home::Nowhere if writes => Home::Block(block, at),
                Home::Block(home, _) if home == block => Home::Block(home, at),
                _ => Home::Kept,
            };
        });
    }
    let mut slots = [Slots::new(&homes[0]), Slots::new(&homes[1])];
    for (at, instruction) in kernel.code.iter_mut().enumerate() {
        // A guarded write reads its target as well: nothing is free before it is over.
        let mut early = matches!(instruction.guard, Guard::Always);
        instruction.registers(&mut |bank, register, writes| {
            if writes && early {
                slots.iter_mut().for_each(Slots::free);
                early = false;
            }
            let (Some(homes), Some(slots)) = (of(&mut homes, bank), of(&mut slots, bank)) else {
                return;
            };
            let number = *register as usize;
            let slot = slots.slot(number);
            if homes[number] == Home::Block(blocks[at], at) && !slots.over.contains(&number) {
                slots.over.push(number);
            }
            *register = slot;
        });
        slots.iter_mut().for_each(Slots::free);
    }
    let [words, doubles] = slots;
    kernel.words = words.initial(&kernel.words);
    kernel.doubles = doubles.initial(&kernel.doubles);
}

fn of<T>(banks: &mut [T; 2], bank: Bank) -> Option<&mut T> {
    match bank {
        Bank::Words => banks.first_mut(),
        Bank::Doubles => banks.last_mut(),
        Bank::Predicates => None,
    }
}

/// The basic block of each instruction.
fn blocks(kernel: &Kernel) -> Vec<usize> {
    let mut starts = vec![false; kernel.code.len() + 1];
    for (at, instruction) in kernel.code.iter().enumerate() {
        if let Work::Branch(target) = instruction.work {
            starts[at + 1] = true;
            starts[target as usize] = true;
        }
    }
    let mut block = 0;
    starts
        .iter()
        .take(kernel.code.len())
        .map(|starts| {
            block += usize::from(*starts);
            block
        })
        .collect()
}

/// The slots of one bank.
struct Slots {
    of: Vec<Option<u32>>,
    free: Vec<u32>,
    /// Registers whose last use is the present instruction.
    over: Vec<usize>,
    count: u32,
}

impl Slots {
    /// Registers that are kept come first.
    fn new(homes: &[Home]) -> Self {
        let mut slots =
            Self { of: vec![None; homes.len()], free: Vec::new(), over: Vec::new(), count: 0 };
        for (register, home) in homes.iter().enumerate() {
            if *home == Home::Kept {
                slots.slot(register);
            }
        }
        slots
    }

    fn slot(&mut self, register: usize) -> u32 {
        if let Some(slot) = self.of[register] {
            return slot;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.count += 1;
            self.count - 1
        });
        self.of[register] = Some(slot);
        slot
    }

    fn free(&mut self) {
        for register in self.over.drain(..) {
            self.free.extend(self.of[register].take());
        }
    }

    /// The initial values: those of the registers that kept a slot of their own.
    fn initial<T: Copy + Default>(&self, values: &[T]) -> Vec<T> {
        let mut initial = vec![T::default(); self.count as usize];
        for (slot, value) in self.of.iter().zip(values) {
            if let Some(slot) = slot {
                initial[*slot as usize] = *value;
            }
        }
        initial
    }
}
