//! The registers of a warp, and what is computed with them: all lanes at once.

use super::LANES;
use super::instruction::{Kernel, Op, Relation, Type};

/// The registers of a warp. A predicate is a bit for each lane.
#[derive(Debug)]
pub(super) struct Registers {
    pub(super) words: Vec<[u32; LANES]>,
    pub(super) doubles: Vec<[u64; LANES]>,
    pub(super) predicates: Vec<u32>,
}

/// Puts the lanes of a mask.
fn put<T: Copy>(target: &mut [T; LANES], value: [T; LANES], mask: u32) {
    if mask == u32::MAX {
        *target = value;
        return;
    }
    for (lane, (target, value)) in target.iter_mut().zip(value).enumerate() {
        if mask >> lane & 1 == 1 {
            *target = value;
        }
    }
}

impl Registers {
    pub(super) fn new(kernel: &Kernel) -> Self {
        let mut registers = Self { words: Vec::new(), doubles: Vec::new(), predicates: Vec::new() };
        registers.reset(kernel);
        registers
    }

    /// As at the start of a block.
    pub(super) fn reset(&mut self, kernel: &Kernel) {
        self.words.clear();
        self.words.extend(kernel.words.iter().map(|value| [*value; LANES]));
        self.doubles.clear();
        self.doubles.extend(kernel.doubles.iter().map(|value| [*value; LANES]));
        self.predicates.clear();
        self.predicates
            .extend(kernel.predicates.iter().map(|value| if *value { u32::MAX } else { 0 }));
    }

    pub(super) fn set_word(&mut self, target: u32, value: [u32; LANES], mask: u32) {
        put(&mut self.words[target as usize], value, mask);
    }

    pub(super) fn set_predicate(&mut self, target: u32, value: u32, mask: u32) {
        let target = &mut self.predicates[target as usize];
        *target = (*target & !mask) | (value & mask);
    }

    fn words1(&mut self, at: [u32; 4], mask: u32, f: impl Fn(u32) -> u32) {
        let a = self.words[at[1] as usize];
        put(&mut self.words[at[0] as usize], core::array::from_fn(|lane| f(a[lane])), mask);
    }

    fn words2(&mut self, at: [u32; 4], mask: u32, f: impl Fn(u32, u32) -> u32) {
        let (a, b) = (self.words[at[1] as usize], self.words[at[2] as usize]);
        let value = core::array::from_fn(|lane| f(a[lane], b[lane]));
        put(&mut self.words[at[0] as usize], value, mask);
    }

    fn words3(&mut self, at: [u32; 4], mask: u32, f: impl Fn(u32, u32, u32) -> u32) {
        let (a, b) = (self.words[at[1] as usize], self.words[at[2] as usize]);
        let c = self.words[at[3] as usize];
        let value = core::array::from_fn(|lane| f(a[lane], b[lane], c[lane]));
        put(&mut self.words[at[0] as usize], value, mask);
    }

    fn doubles1(&mut self, at: [u32; 4], mask: u32, f: impl Fn(u64) -> u64) {
        let a = self.doubles[at[1] as usize];
        put(&mut self.doubles[at[0] as usize], core::array::from_fn(|lane| f(a[lane])), mask);
    }

    fn doubles2(&mut self, at: [u32; 4], mask: u32, f: impl Fn(u64, u64) -> u64) {
        let (a, b) = (self.doubles[at[1] as usize], self.doubles[at[2] as usize]);
        let value = core::array::from_fn(|lane| f(a[lane], b[lane]));
        put(&mut self.doubles[at[0] as usize], value, mask);
    }

    fn shifted(&mut self, at: [u32; 4], mask: u32, f: impl Fn(u64, u32) -> u64) {
        let (a, b) = (self.doubles[at[1] as usize], self.words[at[2] as usize]);
        let value = core::array::from_fn(|lane| f(a[lane], b[lane]));
        put(&mut self.doubles[at[0] as usize], value, mask);
    }

    pub(super) fn word(&mut self, op: Op, at: [u32; 4], mask: u32) {
        match op {
            Op::Move => self.words1(at, mask, |a| a),
            Op::Add => self.words2(at, mask, u32::wrapping_add),
            Op::Subtract => self.words2(at, mask, u32::wrapping_sub),
            Op::Multiply => self.words2(at, mask, u32::wrapping_mul),
            Op::MultiplyAdd => self.words3(at, mask, |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
            Op::Negate => self.words1(at, mask, u32::wrapping_neg),
            Op::And => self.words2(at, mask, |a, b| a & b),
            Op::Or => self.words2(at, mask, |a, b| a | b),
            Op::Xor => self.words2(at, mask, |a, b| a ^ b),
            Op::Not => self.words1(at, mask, |a| !a),
            Op::ShiftLeft => self.words2(at, mask, |a, n| if n < 32 { a << n } else { 0 }),
            Op::ShiftRight => self.words2(at, mask, |a, n| if n < 32 { a >> n } else { 0 }),
            Op::ShiftRightSigned => {
                self.words2(at, mask, |a, n| (a.cast_signed() >> n.min(31)).cast_unsigned());
            }
            Op::FunnelLeft => self.words3(at, mask, |a, b, n| {
                (((u64::from(b) << 32 | u64::from(a)) << (n & 31)) >> 32) as u32
            }),
            Op::FunnelRight => self.words3(at, mask, |a, b, n| {
                ((u64::from(b) << 32 | u64::from(a)) >> (n & 31)) as u32
            }),
            Op::Extract => self.words3(at, mask, extract),
            Op::Permute => self.words3(at, mask, permute),
            Op::Minimum => self.words2(at, mask, u32::min),
            Op::Maximum => self.words2(at, mask, u32::max),
            Op::MinimumSigned => {
                self.words2(at, mask, |a, b| a.cast_signed().min(b.cast_signed()).cast_unsigned());
            }
            Op::MaximumSigned => {
                self.words2(at, mask, |a, b| a.cast_signed().max(b.cast_signed()).cast_unsigned());
            }
        }
    }

    /// `left_by` is below 32.
    pub(super) fn rotate(&mut self, target: u32, source: u32, left_by: u32, mask: u32) {
        // Two shifts and an or: by one amount for all lanes, a processor has these for many lanes at once.
        let right_by = 31 - left_by;
        self.words1([target, source, 0, 0], mask, |a| a << left_by | a >> right_by >> 1);
    }

    /// On 16 bits, which stand in words with zeros before them.
    pub(super) fn half(&mut self, op: Op, at: [u32; 4], mask: u32) {
        self.word(op, at, mask);
        let lanes = &mut self.words[at[0] as usize];
        put(lanes, lanes.map(|lane| lane & 0xFFFF), mask);
    }

    pub(super) fn double(&mut self, op: Op, at: [u32; 4], mask: u32) {
        match op {
            Op::Move => self.doubles1(at, mask, |a| a),
            Op::Add => self.doubles2(at, mask, u64::wrapping_add),
            Op::Subtract => self.doubles2(at, mask, u64::wrapping_sub),
            Op::Multiply => self.doubles2(at, mask, u64::wrapping_mul),
            Op::MultiplyAdd => {
                let c = self.doubles[at[3] as usize];
                let (a, b) = (self.doubles[at[1] as usize], self.doubles[at[2] as usize]);
                let sum = |lane: usize| a[lane].wrapping_mul(b[lane]).wrapping_add(c[lane]);
                put(&mut self.doubles[at[0] as usize], core::array::from_fn(sum), mask);
            }
            Op::Negate => self.doubles1(at, mask, u64::wrapping_neg),
            Op::And => self.doubles2(at, mask, |a, b| a & b),
            Op::Or => self.doubles2(at, mask, |a, b| a | b),
            Op::Xor => self.doubles2(at, mask, |a, b| a ^ b),
            Op::Not => self.doubles1(at, mask, |a| !a),
            Op::ShiftLeft => self.shifted(at, mask, |a, n| if n < 64 { a << n } else { 0 }),
            Op::ShiftRight => self.shifted(at, mask, |a, n| if n < 64 { a >> n } else { 0 }),
            Op::ShiftRightSigned => {
                self.shifted(at, mask, |a, n| (a.cast_signed() >> n.min(63)).cast_unsigned());
            }
            Op::Minimum => self.doubles2(at, mask, u64::min),
            Op::Maximum => self.doubles2(at, mask, u64::max),
            Op::MinimumSigned => {
                self.doubles2(at, mask, |a, b| {
                    a.cast_signed().min(b.cast_signed()).cast_unsigned()
                });
            }
            Op::MaximumSigned => {
                self.doubles2(at, mask, |a, b| {
                    a.cast_signed().max(b.cast_signed()).cast_unsigned()
                });
            }
            // The decoder makes none of these for doubles.
            Op::FunnelLeft | Op::FunnelRight | Op::Extract | Op::Permute => {}
        }
    }

    /// A product in full, perhaps plus a number of twice the bits.
    pub(super) fn wide(
        &mut self,
        from: Type,
        target: u32,
        factors: [u32; 2],
        addend: Option<u32>,
        mask: u32,
    ) {
        let (a, b) = (self.words[factors[0] as usize], self.words[factors[1] as usize]);
        let product = |lane: usize| {
            if from.signed {
                extend(a[lane].into(), from).wrapping_mul(extend(b[lane].into(), from))
            } else {
                u64::from(a[lane]).wrapping_mul(u64::from(b[lane]))
            }
        };
        if from.bits == 32 {
            let c = addend.map_or([0; LANES], |addend| self.doubles[addend as usize]);
            let value = core::array::from_fn(|lane| product(lane).wrapping_add(c[lane]));
            put(&mut self.doubles[target as usize], value, mask);
        } else {
            let c = addend.map_or([0; LANES], |addend| self.words[addend as usize]);
            let value = core::array::from_fn(|lane| (product(lane) as u32).wrapping_add(c[lane]));
            put(&mut self.words[target as usize], value, mask);
        }
    }

    pub(super) fn compare(
        &mut self,
        relation: Relation,
        kind: Type,
        target: u32,
        sources: [u32; 2],
        mask: u32,
    ) {
        let [a, b] = sources.map(|source| self.extended(source, kind));
        let holds = |lane: usize| {
            let order = if kind.signed {
                a[lane].cast_signed().cmp(&b[lane].cast_signed())
            } else {
                a[lane].cmp(&b[lane])
            };
            match relation {
                Relation::Equal => order.is_eq(),
                Relation::Different => order.is_ne(),
                Relation::Less => order.is_lt(),
                Relation::LessOrEqual => order.is_le(),
                Relation::Greater => order.is_gt(),
                Relation::GreaterOrEqual => order.is_ge(),
            }
        };
        let value = (0..LANES).fold(0, |bits, lane| bits | u32::from(holds(lane)) << lane);
        self.set_predicate(target, value, mask);
    }

    pub(super) fn select(
        &mut self,
        wide: bool,
        target: u32,
        sources: [u32; 2],
        predicate: u32,
        mask: u32,
    ) {
        let chosen = self.predicates[predicate as usize];
        let [a, b] = sources.map(|source| source as usize);
        if wide {
            let mut value = self.doubles[b];
            put(&mut value, self.doubles[a], chosen);
            put(&mut self.doubles[target as usize], value, mask);
        } else {
            let mut value = self.words[b];
            put(&mut value, self.words[a], chosen);
            put(&mut self.words[target as usize], value, mask);
        }
    }

    pub(super) fn logic(&mut self, op: Op, target: u32, sources: [u32; 2], mask: u32) {
        let [a, b] = sources.map(|source| self.predicates[source as usize]);
        let value = match op {
            Op::And => a & b,
            Op::Or => a | b,
            Op::Xor => a ^ b,
            Op::Not => !a,
            _ => a,
        };
        self.set_predicate(target, value, mask);
    }

    pub(super) fn convert(&mut self, from: Type, to: Type, target: u32, source: u32, mask: u32) {
        let value = self.extended(source, from);
        if to.bits == 64 {
            put(&mut self.doubles[target as usize], value, mask);
        } else {
            let kept = u32::MAX >> (32 - to.bits);
            put(&mut self.words[target as usize], value.map(|value| value as u32 & kept), mask);
        }
    }

    /// A register's lanes of a type, as numbers of 64 bits.
    fn extended(&self, source: u32, kind: Type) -> [u64; LANES] {
        let value = if kind.bits == 64 {
            self.doubles[source as usize]
        } else {
            self.words[source as usize].map(u64::from)
        };
        if kind.bits == 64 { value } else { value.map(|value| extend(value, kind)) }
    }

    pub(super) fn pack(&mut self, wide: bool, target: u32, halves: [u32; 2], mask: u32) {
        let [low, high] = halves.map(|half| self.words[half as usize]);
        if wide {
            let value = |lane: usize| u64::from(high[lane]) << 32 | u64::from(low[lane]);
            put(&mut self.doubles[target as usize], core::array::from_fn(value), mask);
        } else {
            let value = |lane: usize| high[lane] << 16 | low[lane] & 0xFFFF;
            put(&mut self.words[target as usize], core::array::from_fn(value), mask);
        }
    }

    pub(super) fn unpack(&mut self, wide: bool, halves: [u32; 2], source: u32, mask: u32) {
        let (low, high) = if wide {
            let value = self.doubles[source as usize];
            (value.map(|value| value as u32), value.map(|value| (value >> 32) as u32))
        } else {
            let value = self.words[source as usize];
            (value.map(|value| value & 0xFFFF), value.map(|value| value >> 16))
        };
        put(&mut self.words[halves[0] as usize], low, mask);
        put(&mut self.words[halves[1] as usize], high, mask);
    }
}

/// The lower bits of a value, with its sign.
pub(super) fn extend(value: u64, kind: Type) -> u64 {
    let unused = 64 - kind.bits;
    let value = value << unused;
    if kind.signed { (value.cast_signed() >> unused).cast_unsigned() } else { value >> unused }
}

/// `bfe.u32`.
fn extract(a: u32, position: u32, len: u32) -> u32 {
    let (position, len) = (position & 255, len & 255);
    let shifted = if position < 32 { a >> position } else { 0 };
    if len < 32 { shifted & ((1 << len) - 1) } else { shifted }
}

/// `prmt.b32`: each nibble of the selector names one of eight bytes, or its sign.
fn permute(a: u32, b: u32, selector: u32) -> u32 {
    let bytes = (u64::from(b) << 32 | u64::from(a)).to_le_bytes();
    let mut result = [0; 4];
    for (at, byte) in result.iter_mut().enumerate() {
        let chosen = selector >> (4 * at) & 15;
        let value = bytes[chosen as usize & 7];
        let sign = if value & 0x80 == 0 { 0 } else { 0xFF };
        *byte = if chosen < 8 { value } else { sign };
    }
    u32::from_le_bytes(result)
}
