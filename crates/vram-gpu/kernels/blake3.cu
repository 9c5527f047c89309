// BLAKE3 chaining values of device memory. A thread hashes a chunk of 1 KiB; a block hashes an item of
// up to 256 chunks, and merges them to subtrees in shared memory.
//
// Source: O'Connor, Aumasson, Neves, Wilcox-O'Hearn, "BLAKE3: one function, fast everywhere" (2020).
#include "gpu.h"

#define CHUNK 1024
#define BLOCK 64

enum Flags { CHUNK_START = 1, CHUNK_END = 2, PARENT = 4, ROOT = 8 };

// ABI, 32 bytes: what one block hashes.
struct Item {
  u64 address;  // of the first byte; a multiple of 16
  u64 counter;  // number of the first chunk in the whole
  u32 len;      // bytes, 1 to THREADS * CHUNK
  u32 out;      // index of the first value that is written
  u32 levels;   // how often neighbours are merged: 2^levels chunks a value
  u32 root;     // 1: the last merge, or the only chunk, is the root of the tree
};

static_assert(sizeof(Item) == 32, "ABI");

// ABI, 16 bytes: subtrees that one block merges to one value.
struct Merge {
  u32 first;  // index of the first subtree
  u32 count;  // how many, 2 to THREADS
  u32 out;    // index of the value that is written
  u32 root;   // 1: the last merge is the root of the tree
};
static_assert(sizeof(Merge) == 16, "ABI");

#define IV { 0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19 }

FN void mix(u32* v, int a, int b, int c, int d, u32 x, u32 y, u32 one) {
  v[a] = add(v[b], add(x, v[a], one), one);
  v[d] = rotate_right(v[d] ^ v[a], 16);
  v[c] = add(v[d], v[c], one);
  v[b] = rotate_right(v[b] ^ v[c], 12);
  v[a] = add(v[b], add(y, v[a], one), one);
  v[d] = rotate_right(v[d] ^ v[a], 8);
  v[c] = add(v[d], v[c], one);
  v[b] = rotate_right(v[b] ^ v[c], 7);
}

// One block of `len` bytes, as 16 words with zeros past the end, into the chaining value `cv`.
FN void compress(u32* cv, const u32* words, u64 counter, u32 len, u32 flags, u32 one) {
  // The permutation of the words, applied 0 to 6 times.
  static constexpr u8 order[7][16] = {
    { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 },
    { 2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8 },
    { 3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1 },
    { 10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6 },
    { 12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4 },
    { 9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7 },
    { 11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13 },
  };
  u32 const iv[8] = IV;
  u32 v[16] = { cv[0], cv[1], cv[2], cv[3], cv[4], cv[5], cv[6], cv[7],
                iv[0], iv[1], iv[2], iv[3], (u32)counter, (u32)(counter >> 32), len, flags };
  UNROLL
  for (int round = 0; round < 7; round++) {
    const u8* at = order[round];
    mix(v, 0, 4, 8, 12, words[at[0]], words[at[1]], one);
    mix(v, 1, 5, 9, 13, words[at[2]], words[at[3]], one);
    mix(v, 2, 6, 10, 14, words[at[4]], words[at[5]], one);
    mix(v, 3, 7, 11, 15, words[at[6]], words[at[7]], one);
    mix(v, 0, 5, 10, 15, words[at[8]], words[at[9]], one);
    mix(v, 1, 6, 11, 12, words[at[10]], words[at[11]], one);
    mix(v, 2, 7, 8, 13, words[at[12]], words[at[13]], one);
    mix(v, 3, 4, 9, 14, words[at[14]], words[at[15]], one);
  }
  UNROLL
  for (int i = 0; i < 8; i++) cv[i] = v[i] ^ v[i + 8];
}

FN void load_block(u32* words, Bytes at, u32 len) {
  if (len == BLOCK) {
    UNROLL
    for (int i = 0; i < 4; i++) {
      u32x4 quad = ((Quads)at)[i];
      UNROLL
      for (int j = 0; j < 4; j++) words[4 * i + j] = quad[j];
    }
  } else {
    UNROLL
    for (u32 i = 0; i < 16; i++) words[i] = load_word(at, 4 * i, len);
  }
}

FN void hash_chunk(u32* cv, Bytes at, u32 len, u64 counter, u32 root, u32 one) {
  u32 const iv[8] = IV;
  UNROLL
  for (int i = 0; i < 8; i++) cv[i] = iv[i];
  u32 flags = CHUNK_START;
  u32 words[16];
  NO_UNROLL
  while (len > BLOCK) {
    load_block(words, at, BLOCK);
    compress(cv, words, counter, BLOCK, flags, one);
    at += BLOCK;
    len -= BLOCK;
    flags = 0;
  }
  load_block(words, at, len);
  compress(cv, words, counter, len, flags | CHUNK_END | root, one);
}

// Chaining values in shared memory, word by word: neighbouring threads then meet different banks.
struct Nodes {
  u32 word[8][THREADS];
};

// Merges `count` nodes pairwise into `to`; an odd one at the end passes up as it is. Reading from one
// buffer and writing to another needs one barrier a level. Returns how many are left.
FN u32 merge_level(const Nodes& from, Nodes& to, u32 count, u32 root, u32 one) {
  u32 tid = thread_id();
  if (2 * tid + 1 < count) {
    u32 const iv[8] = IV;
    u32 cv[8], words[16];
    UNROLL
    for (int i = 0; i < 8; i++) {
      words[i] = from.word[i][2 * tid];
      words[i + 8] = from.word[i][2 * tid + 1];
      cv[i] = iv[i];
    }
    compress(cv, words, 0, BLOCK, PARENT | (root && count == 2 ? ROOT : 0), one);
    UNROLL
    for (int i = 0; i < 8; i++) to.word[i][tid] = cv[i];
  } else if (2 * tid < count) {
    for (int i = 0; i < 8; i++) to.word[i][tid] = from.word[i][2 * tid];
  }
  barrier();
  return (count + 1) >> 1;
}

// A block an item. Writes ceil(chunks / 2^levels) values of 8 words.
KERNEL void blake3_items(const Item* items, u32* out, u32 one) {
  SHARED Nodes nodes[2];
  const Item item = items[block_id()];
  u32 tid = thread_id();
  u32 count = (item.len + CHUNK - 1) / CHUNK;
  if (tid < count) {
    u32 cv[8], at = tid * CHUNK, left = item.len - at;
    u32 root = item.root && count == 1 ? ROOT : 0;
    hash_chunk(cv, (Bytes)item.address + at, left < CHUNK ? left : CHUNK, item.counter + tid, root, one);
    UNROLL
    for (int i = 0; i < 8; i++) nodes[0].word[i][tid] = cv[i];
  }
  barrier();
  u32 turn = 0;
  for (u32 level = 0; level < item.levels; level++, turn ^= 1)
    count = merge_level(nodes[turn], nodes[turn ^ 1], count, item.root, one);
  if (tid < count)
    for (int i = 0; i < 8; i++) out[(u64)(item.out + tid) * 8 + i] = nodes[turn].word[i][tid];
}

// A block a merge.
KERNEL void blake3_merge(const Merge* merges, const u32* subtrees, u32* out, u32 one) {
  SHARED Nodes nodes[2];
  const Merge merge = merges[block_id()];
  u32 tid = thread_id();
  u32 count = merge.count;
  if (tid < count)
    for (int i = 0; i < 8; i++) nodes[0].word[i][tid] = subtrees[(u64)(merge.first + tid) * 8 + i];
  barrier();
  u32 turn = 0;
  NO_UNROLL
  for (; count > 1; turn ^= 1) count = merge_level(nodes[turn], nodes[turn ^ 1], count, merge.root, one);
  if (tid < 8) out[(u64)merge.out * 8 + tid] = nodes[turn].word[tid][0];
}
