//! Random changes of inputs, for where no coverage guides the fuzzer: the same for the same seed.

/// A small generator (xorshift).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The sequence of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        let state = seed ^ 0x9e37_79b9_7f4a_7c15;
        Self(if state == 0 { 1 } else { state })
    }

    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The low bits are the weakest.
        self.0 >> 16
    }

    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap().max(1);
        usize::try_from(self.roll() % bound).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.roll().to_le_bytes()[0]
    }
}

/// A changed copy of one of the inputs, or now and then bytes without any form.
#[must_use]
pub fn mutated(inputs: &[Vec<u8>], len_max: usize, dice: &mut Dice) -> Vec<u8> {
    let mut bytes = inputs.get(dice.below(inputs.len())).cloned().unwrap_or_default();
    if dice.below(32) == 0 {
        bytes = (0..dice.below(len_max.min(200))).map(|_| dice.byte()).collect();
    }
    for _ in 0..=dice.below(4) {
        let len = bytes.len();
        let at = dice.below(len);
        match dice.below(7) {
            0 if len > 0 => bytes[at] ^= 1 << dice.below(8),
            1 if len > 0 => bytes[at] = dice.byte(),
            2 => bytes.insert(at, dice.byte()),
            3 if len > 0 => drop(bytes.remove(at)),
            4 => bytes.extend((0..dice.below(12)).map(|_| dice.byte())),
            5 => {
                // A piece of another input: two scripts become one.
                let other = inputs.get(dice.below(inputs.len())).map(Vec::as_slice);
                let other = other.unwrap_or_default();
                let from = dice.below(other.len());
                let end = (from + dice.below(40)).min(other.len());
                bytes.splice(at..at, other[from..end].iter().copied());
            }
            _ => bytes.truncate(at),
        }
    }
    bytes.truncate(len_max);
    bytes
}
