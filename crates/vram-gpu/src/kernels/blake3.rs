//! BLAKE3 in the shape of the kernel: chunks, and the tree above them.
//!
//! # Source
//!
//! O'Connor, Aumasson, Neves, Wilcox-O'Hearn, *BLAKE3: one function, fast everywhere* (2020),
//! sections 2.1 to 2.5.

/// Bytes in a chunk, and in a block of it.
const CHUNK_LEN: usize = 1024;
const BLOCK_LEN: usize = 64;

const CHUNK_START: u32 = 1;
const CHUNK_END: u32 = 2;
const PARENT: u32 = 4;
const ROOT: u32 = 8;

const IV: [u32; 8] = [
    0x6A09_E667,
    0xBB67_AE85,
    0x3C6E_F372,
    0xA54F_F53A,
    0x510E_527F,
    0x9B05_688C,
    0x1F83_D9AB,
    0x5BE0_CD19,
];

/// Where each word of a block stands in the next round.
const PERMUTATION: [usize; 16] = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];

type Value = [u32; 8];

/// One call of the compression function, not yet made: the last one of the whole gets a flag more.
#[derive(Clone, Copy)]
struct Node {
    value: Value,
    block: [u32; 16],
    chunk: u64,
    len: u32,
    flags: u32,
}

/// The value of a subtree whose bytes come in pieces.
pub(crate) struct Tree {
    first_chunk: u64,
    // Chunks whose values have been merged.
    chunks: u64,
    // Values of complete subtrees that have no neighbour yet, the largest first.
    stack: Vec<Value>,
    // The last chunk so far, which may be the last one.
    last: Option<Node>,
}

impl Tree {
    /// A subtree that begins with this chunk of the whole.
    pub(crate) const fn at(first_chunk: u64) -> Self {
        Self { first_chunk, chunks: 0, stack: Vec::new(), last: None }
    }

    /// The next bytes. All pieces but the last one are whole chunks.
    pub(crate) fn update(&mut self, piece: &[u8]) {
        for chunk in piece.chunks(CHUNK_LEN) {
            if let Some(last) = self.last.take() {
                self.push(last.value());
            }
            self.last = Some(chunk_node(chunk, self.first_chunk.wrapping_add(self.chunks)));
        }
    }

    /// The value; `root` if this is the whole.
    pub(crate) fn finish(mut self, root: bool) -> [u8; 32] {
        let mut node = self.last.unwrap_or_else(|| chunk_node(&[], self.first_chunk));
        while let Some(left) = self.stack.pop() {
            node = parent(left, node.value());
        }
        if root {
            node.flags |= ROOT;
        }
        let mut bytes = [0; 32];
        for (to, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(node.value()) {
            *to = word.to_le_bytes();
        }
        bytes
    }

    /// Adds the value of a chunk that is not the last one, and merges what it completes.
    fn push(&mut self, mut value: Value) {
        self.chunks = self.chunks.wrapping_add(1);
        for _ in 0..self.chunks.trailing_zeros() {
            if let Some(left) = self.stack.pop() {
                value = parent(left, value).value();
            }
        }
        self.stack.push(value);
    }
}

impl Node {
    /// Makes the call.
    fn value(&self) -> Value {
        let state = compressed(self);
        let (low, high) = state.split_at(8);
        let mut value = [0; 8];
        for ((word, low), high) in value.iter_mut().zip(low).zip(high) {
            *word = low ^ high;
        }
        value
    }
}

fn chunk_node(bytes: &[u8], chunk: u64) -> Node {
    let mut node = Node { value: IV, block: [0; 16], chunk, len: 0, flags: CHUNK_START };
    let mut blocks = bytes.chunks(BLOCK_LEN).peekable();
    while let Some(block) = blocks.next() {
        node.block = words(block);
        node.len = u32::try_from(block.len()).unwrap_or(0);
        if blocks.peek().is_some() {
            node.value = node.value();
            node.flags = 0;
        }
    }
    node.flags |= CHUNK_END;
    node
}

fn parent(left: Value, right: Value) -> Node {
    let mut block = [0; 16];
    for (word, from) in block.iter_mut().zip(left.into_iter().chain(right)) {
        *word = from;
    }
    Node { value: IV, block, chunk: 0, len: 64, flags: PARENT }
}

/// The words of a block; bytes that are missing are zeros.
fn words(bytes: &[u8]) -> [u32; 16] {
    let mut block = [0; BLOCK_LEN];
    for (to, from) in block.iter_mut().zip(bytes) {
        *to = *from;
    }
    let mut words = [0; 16];
    for (word, bytes) in words.iter_mut().zip(block.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}

#[expect(clippy::indexing_slicing, reason = "the positions are constants below 16")]
fn compressed(node: &Node) -> [u32; 16] {
    let low = u32::try_from(node.chunk & u64::from(u32::MAX)).unwrap_or(0);
    let high = u32::try_from(node.chunk >> 32).unwrap_or(0);
    let last = [low, high, node.len, node.flags];
    let mut state = [0; 16];
    let given = node.value.into_iter().chain(IV.into_iter().take(4)).chain(last);
    for (word, from) in state.iter_mut().zip(given) {
        *word = from;
    }
    let mut block = node.block;
    for round in 0..7 {
        if round > 0 {
            block = PERMUTATION.map(|from| block[from]);
        }
        // Columns, then diagonals. Positions that are constants need no check when they are inlined.
        mix(&mut state, [0, 4, 8, 12], [block[0], block[1]]);
        mix(&mut state, [1, 5, 9, 13], [block[2], block[3]]);
        mix(&mut state, [2, 6, 10, 14], [block[4], block[5]]);
        mix(&mut state, [3, 7, 11, 15], [block[6], block[7]]);
        mix(&mut state, [0, 5, 10, 15], [block[8], block[9]]);
        mix(&mut state, [1, 6, 11, 12], [block[10], block[11]]);
        mix(&mut state, [2, 7, 8, 13], [block[12], block[13]]);
        mix(&mut state, [3, 4, 9, 14], [block[14], block[15]]);
    }
    state
}

#[expect(clippy::indexing_slicing, reason = "the positions are constants below 16")]
#[expect(clippy::inline_always, reason = "the positions have to be constants where it is called")]
#[inline(always)]
fn mix(state: &mut [u32; 16], [a, b, c, d]: [usize; 4], [first, second]: [u32; 2]) {
    state[a] = state[a].wrapping_add(state[b]).wrapping_add(first);
    state[d] = (state[d] ^ state[a]).rotate_right(16);
    state[c] = state[c].wrapping_add(state[d]);
    state[b] = (state[b] ^ state[c]).rotate_right(12);
    state[a] = state[a].wrapping_add(state[b]).wrapping_add(second);
    state[d] = (state[d] ^ state[a]).rotate_right(8);
    state[c] = state[c].wrapping_add(state[d]);
    state[b] = (state[b] ^ state[c]).rotate_right(7);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(bytes: &[u8], piece: usize) -> [u8; 32] {
        let mut tree = Tree::at(0);
        bytes.chunks(piece).for_each(|piece| tree.update(piece));
        tree.finish(true)
    }

    #[test]
    fn hashes_are_those_of_the_reference() {
        let bytes: Vec<u8> =
            (0_u32..70_000).map(|at| at.wrapping_mul(101).to_le_bytes()[1]).collect();
        for len in
            [1, 63, 64, 65, 1023, 1024, 1025, 2048, 2049, 3072, 5_000, 65_536, 65_537, 70_000]
        {
            let expected = *blake3::hash(&bytes[..len]).as_bytes();
            for piece in [1024, 4096, 1 << 16] {
                assert_eq!(ours(&bytes[..len], piece), expected, "{len} bytes by {piece}");
            }
        }
    }

    #[test]
    fn values_of_subtrees_are_those_of_the_reference() {
        use blake3::hazmat::HasherExt;
        let bytes: Vec<u8> =
            (0_u32..16_384).map(|at| at.wrapping_mul(77).to_le_bytes()[1]).collect();
        for (first, len) in [(0, 1024), (1, 1000), (16, 16_384), (1 << 40, 16_384), (48, 9_999)] {
            let mut reference = blake3::Hasher::new();
            reference.set_input_offset(first * 1024).update(&bytes[..len]);
            let mut tree = Tree::at(first);
            tree.update(&bytes[..len]);
            let expected = reference.finalize_non_root();
            assert_eq!(tree.finish(false), expected, "{len} bytes at chunk {first}");
        }
    }
}
