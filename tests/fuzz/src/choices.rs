//! An input read as a list of choices. Behind its end all choices are zero, so every input is one.

/// The choices that are left.
#[derive(Clone, Debug)]
pub struct Choices<'a>(&'a [u8]);

/// Numbers at which code with lengths, offsets and counts changes its mind.
const EDGES: [u64; 24] = [
    0,
    1,
    2,
    127,
    128,
    255,
    256,
    4095,
    4096,
    4097,
    0xffff,
    0x1_0000,
    (1 << 24) - 1,
    1 << 24,
    (1 << 24) + 1,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 32,
    1 << 48,
    (1 << 48) + 1,
    i64::MAX.unsigned_abs(),
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

impl<'a> Choices<'a> {
    /// All choices of an input.
    #[must_use]
    pub const fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    /// Whether none is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All bytes that are left.
    pub fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.0)
    }

    /// The next bytes, fewer at the end.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let taken = self.take(N);
        bytes[..taken.len()].copy_from_slice(taken);
        bytes
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    /// Two bytes, little-endian, as a place or a length.
    pub fn short(&mut self) -> usize {
        usize::from(u16::from_le_bytes(self.array()))
    }

    /// A number below `bound`; 0 if the bound is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.short().checked_rem(bound).unwrap_or(0)
    }

    /// A number: any, small, or one of those at which something changes.
    pub fn number(&mut self) -> u64 {
        let kind = usize::from(self.byte());
        match kind.checked_sub(2) {
            Some(edge) => EDGES[edge % EDGES.len()],
            None if kind == 0 => u64::from_le_bytes(self.array()),
            None => u64::try_from(self.short()).unwrap(),
        }
    }

    /// One of these.
    pub fn of<'b, T>(&mut self, these: &'b [T]) -> &'b T {
        &these[usize::from(self.byte()) % these.len()]
    }
}
