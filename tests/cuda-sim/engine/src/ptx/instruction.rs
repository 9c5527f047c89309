//! Decoded instructions.

/// A kernel, ready to run.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) name: String,
    /// The most threads of a block (`.maxntid`), if it has a bound.
    pub(crate) max_threads: Option<u64>,
    /// Bytes of its own shared memory.
    pub(crate) shared_len: usize,
    /// Bytes of local memory of a thread.
    pub(crate) local_len: usize,
    /// Where each parameter starts in the bytes of all, and how long it is.
    pub(super) parameters: Vec<(usize, usize)>,
    /// Where each shared variable lies: apart, so that none can be reached from another.
    pub(super) shared: Vec<core::ops::Range<usize>>,
    /// The widest unit that every access of shared memory is a multiple of, in bytes.
    pub(super) shared_grain: usize,
    pub(super) code: Vec<Instruction>,
    /// The text of each instruction, for messages.
    pub(super) text: Vec<Box<str>>,
    /// The initial registers: constants, and garbage that no program wrote.
    pub(super) words: Vec<u32>,
    pub(super) doubles: Vec<u64>,
    pub(super) predicates: Vec<bool>,
}

/// An instruction and its guard.
#[derive(Clone, Debug)]
pub(super) struct Instruction {
    pub(super) guard: Guard,
    pub(super) work: Work,
}

/// Which lanes an instruction is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Guard {
    Always,
    If(u32),
    Unless(u32),
}

/// What it does. Registers are numbered in three banks: words (32 and 16 bits), doubles (64 bits),
/// predicates. Immediate values are registers that nothing writes.
#[derive(Clone, Debug)]
pub(super) enum Work {
    /// On words: target, then up to three sources.
    Word(Op, [u32; 4]),
    /// The same, on 16 bits.
    Half(Op, [u32; 4]),
    /// On doubles. The amount of a shift is a word.
    Double(Op, [u32; 4]),
    /// A funnel shift of a word with itself, by an amount that is written there: most of what hashes do.
    Rotate {
        target: u32,
        source: u32,
        left_by: u32,
    },
    /// A product of words (or of 16-bit halves) in full, perhaps plus a number: target and addend
    /// have twice the bits.
    Wide {
        from: Type,
        target: u32,
        factors: [u32; 2],
        addend: Option<u32>,
    },
    /// To a predicate.
    Compare {
        relation: Relation,
        kind: Type,
        target: u32,
        sources: [u32; 2],
    },
    Select {
        wide: bool,
        target: u32,
        sources: [u32; 2],
        predicate: u32,
    },
    /// Of predicates; one source for `Not` and `Move`.
    Logic(Op, u32, [u32; 2]),
    Convert {
        from: Type,
        to: Type,
        target: u32,
        source: u32,
    },
    Special {
        target: u32,
        special: Special,
    },
    /// Two halves to one register; `wide`: two words to a double.
    Pack {
        wide: bool,
        target: u32,
        halves: [u32; 2],
    },
    Unpack {
        wide: bool,
        halves: [u32; 2],
        source: u32,
    },
    Load(Access),
    Store(Access),
    /// `mma.m16n8k32` of bytes: 4 sums, 4 + 2 factors, 4 addends.
    Matrix(Box<[u32; 14]>),
    Branch(u32),
    Barrier,
    Return,
}

/// Arithmetic and logic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Move,
    Add,
    Subtract,
    Multiply,
    MultiplyAdd,
    Negate,
    And,
    Or,
    Xor,
    Not,
    ShiftLeft,
    ShiftRight,
    ShiftRightSigned,
    FunnelLeft,
    FunnelRight,
    Extract,
    Permute,
    Minimum,
    Maximum,
    MinimumSigned,
    MaximumSigned,
}

/// Relations of `setp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    Equal,
    Different,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// An integer type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Type {
    pub(super) bits: u32,
    pub(super) signed: bool,
}

/// Registers of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    Thread(usize),
    Threads(usize),
    Block(usize),
    Blocks(usize),
    Lane,
}

/// Kinds of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    Global,
    Shared,
    Local,
    Parameter,
}

/// An access of memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    pub(super) space: Space,
    /// The type of one element.
    pub(super) kind: Type,
    /// The registers of the elements; `wide`: doubles.
    pub(super) elements: [u32; 4],
    pub(super) count: usize,
    pub(super) wide: bool,
    pub(super) base: Base,
    pub(super) offset: u64,
}

/// What an address is counted from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Base {
    Nothing,
    Word(u32),
    Double(u32),
}

/// A bank of registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bank {
    Words,
    Doubles,
    Predicates,
}

/// Told of a register, and whether it is written.
type Visit<'v> = dyn FnMut(Bank, &mut u32, bool) + 'v;

impl Instruction {
    /// Passes every register to `visit`, sources first; `true` for those that are written.
    pub(super) fn registers(&mut self, visit: &mut Visit<'_>) {
        use Bank::{Doubles, Predicates, Words};
        let guarded = !matches!(self.guard, Guard::Always);
        if let Guard::If(predicate) | Guard::Unless(predicate) = &mut self.guard {
            visit(Predicates, predicate, false);
        }
        // A write under a guard leaves the old value in other lanes: it reads as well.
        let write = |bank, register: &mut u32, visit: &mut Visit<'_>| {
            if guarded {
                visit(bank, register, false);
            }
            visit(bank, register, true);
        };
        let by = |wide: bool| if wide { Doubles } else { Words };
        match &mut self.work {
            Work::Word(op, [target, sources @ ..]) | Work::Half(op, [target, sources @ ..]) => {
                for source in sources.iter_mut().take(op.sources()) {
                    visit(Words, source, false);
                }
                write(Words, target, visit);
            }
            Work::Rotate { target, source, .. } => {
                visit(Words, source, false);
                write(Words, target, visit);
            }
            Work::Double(op, [target, sources @ ..]) => {
                for (at, source) in sources.iter_mut().take(op.sources()).enumerate() {
                    visit(by(!(op.is_shift() && at == 1)), source, false);
                }
                write(Doubles, target, visit);
            }
            Work::Wide { from, target, factors, addend } => {
                for factor in factors.iter_mut() {
                    visit(Words, factor, false);
                }
                if let Some(addend) = addend {
                    visit(by(from.bits == 32), addend, false);
                }
                write(by(from.bits == 32), target, visit);
            }
            Work::Compare { kind, target, sources, .. } => {
                for source in sources.iter_mut() {
                    visit(by(kind.bits == 64), source, false);
                }
                write(Predicates, target, visit);
            }
            Work::Select { wide, target, sources, predicate } => {
                for source in sources.iter_mut() {
                    visit(by(*wide), source, false);
                }
                visit(Predicates, predicate, false);
                write(by(*wide), target, visit);
            }
            Work::Logic(op, target, sources) => {
                for source in sources.iter_mut().take(op.sources()) {
                    visit(Predicates, source, false);
                }
                write(Predicates, target, visit);
            }
            Work::Convert { from, to, target, source } => {
                visit(by(from.bits == 64), source, false);
                write(by(to.bits == 64), target, visit);
            }
            Work::Special { target, .. } => write(Words, target, visit),
            Work::Pack { wide, target, halves } => {
                for half in halves.iter_mut() {
                    visit(Words, half, false);
                }
                write(by(*wide), target, visit);
            }
            Work::Unpack { wide, halves, source } => {
                visit(by(*wide), source, false);
                for half in halves.iter_mut() {
                    write(Words, half, visit);
                }
            }
            Work::Load(access) => {
                access.base.registers(visit);
                let bank = by(access.wide);
                for element in access.elements.iter_mut().take(access.count) {
                    write(bank, element, visit);
                }
            }
            Work::Store(access) => {
                access.base.registers(visit);
                let bank = by(access.wide);
                for element in access.elements.iter_mut().take(access.count) {
                    visit(bank, element, false);
                }
            }
            Work::Matrix(registers) => {
                let (sums, factors) = registers.split_at_mut(4);
                for factor in factors.iter_mut() {
                    visit(Words, factor, false);
                }
                for sum in sums.iter_mut() {
                    write(Words, sum, visit);
                }
            }
            Work::Branch(_) | Work::Barrier | Work::Return => {}
        }
    }
}

impl Base {
    fn registers(&mut self, visit: &mut Visit<'_>) {
        match self {
            Self::Nothing => {}
            Self::Word(register) => visit(Bank::Words, register, false),
            Self::Double(register) => visit(Bank::Doubles, register, false),
        }
    }
}

impl Op {
    /// How many sources it has.
    pub(super) const fn sources(self) -> usize {
        match self {
            Self::Move | Self::Negate | Self::Not => 1,
            Self::MultiplyAdd
            | Self::FunnelLeft
            | Self::FunnelRight
            | Self::Extract
            | Self::Permute => 3,
            _ => 2,
        }
    }

    /// Whether its second source is an amount of 32 bits.
    pub(super) const fn is_shift(self) -> bool {
        matches!(self, Self::ShiftLeft | Self::ShiftRight | Self::ShiftRightSigned)
    }
}

impl Type {
    pub(super) const fn bytes(self) -> usize {
        (self.bits / 8) as usize
    }
}
