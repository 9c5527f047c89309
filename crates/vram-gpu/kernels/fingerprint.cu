// Fingerprints: a secret linear sketch of device memory, at the speed of reading it.
//
// First level: integer products of the bytes with random signed bytes on the tensor cores (u8 * s8, exact
// in 32 bits that wrap), 8 columns: 64 bytes become one number. Second level: these numbers times random
// numbers modulo 2^61 - 1, twice. An item of up to 256 KiB becomes 16 bytes.
#include "gpu.h"

#define WARPS (THREADS / 32)
#define TILE 512               // bytes that one matrix instruction takes
#define STEP (WARPS * TILE)    // bytes that a block takes at once
#define STEPS 64               // steps of the longest item
#define PLACES 4               // sums of one column group that a thread holds
#define DEPTH 4                // loads that a thread has in flight: the kernel is bound by memory

// ABI, 16 bytes: what is fingerprinted.
struct Item {
  u64 address;  // of the first byte; a multiple of 16
  u32 len;      // bytes, 1 to STEPS * STEP
  u32 out;      // index of the fingerprint that is written
};

static_assert(sizeof(Item) == 16, "ABI");

// ABI, 32 KiB: a key, as `FingerprintKey` of Rust has it.
struct Key {
  u32x2 first[STEPS][32];             // signed bytes, as the lanes of a warp hand them to a matrix instruction
  u64 second[2][PLACES][THREADS];     // numbers below 2^61 - 1
};
static_assert(sizeof(Key) == 32 << 10, "ABI");

// acc += a * b, a matrix of 16 * 32 bytes times one of 32 * 8 signed bytes, spread over a warp.
FN void multiply(u32* acc, u32x4 a, u32x2 b) {
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+r"(acc[0]), "+r"(acc[1]), "+r"(acc[2]), "+r"(acc[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#define P ((1ull << 61) - 1)

// x modulo P, for any x.
FN u64 reduce(u64 x) {
  x = (x & P) + (x >> 61);
  return x >= P ? x - P : x;
}

// value * key modulo P, not quite reduced: below 2^63. The key is below 2^61.
FN u64 times(u32 value, u64 key) {
  u64 low = (u64)value * (u32)key, high = (u64)value * (u32)(key >> 32);
  return (low & P) + (low >> 61) + ((high & ((1ull << 29) - 1)) << 32) + (high >> 29);
}

// Under KEYS keys at once, in one pass over the bytes. `out` has 2 * KEYS numbers an item.
template <u32 KEYS>
FN void fingerprints(const Item* items, u32 count, const Key* const* keys, u64* out,
                     u32x2 (&first)[KEYS][STEPS][32], u64 (&sums)[2 * KEYS][THREADS]) {
  u32 tid = thread_id(), lane = tid % 32;
  // The first level of a key is used by every item of a block.
  UNROLL
  for (u32 k = 0; k < KEYS; k++)
    for (u32 i = 0; i < STEPS; i += WARPS) first[k][i + tid / 32][lane] = keys[k]->first[i + tid / 32][lane];
  barrier();
  for (u32 at = block_id(); at < count; at += block_count()) {
    const Item item = items[at];
    u32 acc[KEYS][PLACES];
    UNROLL
    for (u32 k = 0; k < KEYS; k++)
      for (u32 i = 0; i < PLACES; i++) acc[k][i] = 0;
    u32 step = 0;
    NO_UNROLL
    for (; (step + DEPTH) * STEP <= item.len; step += DEPTH) {
      u32x4 quad[DEPTH];
      UNROLL
      for (u32 d = 0; d < DEPTH; d++) quad[d] = ((Quads)item.address)[(step + d) * THREADS + tid];
      UNROLL
      for (u32 d = 0; d < DEPTH; d++)
        for (u32 k = 0; k < KEYS; k++) multiply(acc[k], quad[d], first[k][step + d][lane]);
    }
    NO_UNROLL
    for (; step * STEP < item.len; step++) {
      u32 from = (step * THREADS + tid) * 16;
      u32x4 quad = load_quad((Bytes)item.address + from, from < item.len ? item.len - from : 0);
      UNROLL
      for (u32 k = 0; k < KEYS; k++) multiply(acc[k], quad, first[k][step][lane]);
    }
    UNROLL
    for (u32 k = 0; k < KEYS; k++)
      for (u32 s = 0; s < 2; s++) {
        u64 sum = 0;
        UNROLL
        for (u32 i = 0; i < PLACES; i++) sum = reduce(sum + reduce(times(acc[k][i], keys[k]->second[s][i][tid])));
        sums[2 * k + s][tid] = sum;
      }
    barrier();
    // 256 sums to 32, by a warp for each; then to one, by a thread for each.
    if (tid < 2 * KEYS * 32) {
      u64 sum = 0;
      for (u32 w = 0; w < WARPS; w++) sum = reduce(sum + sums[tid / 32][lane + 32 * w]);
      sums[tid / 32][lane] = sum;
    }
    barrier();
    if (tid < 2 * KEYS) {
      u64 sum = 0;
      for (u32 l = 0; l < 32; l++) sum = reduce(sum + sums[tid][l]);
      out[2 * KEYS * (u64)item.out + tid] = sum;
    }
    // The next item, or the wipe, overwrites the sums.
    barrier();
  }
  // Key and sums are secret.
  wipe(first);
  wipe(sums);
}

// Two numbers an item. Any number of blocks: each takes items in turn.
KERNEL void fingerprint(const Item* items, u32 count, const Key* key, u64* out) {
  SHARED u32x2 first[1][STEPS][32];
  SHARED u64 sums[2][THREADS];
  const Key* keys[1] = { key };
  fingerprints<1>(items, count, keys, out, first, sums);
}

// Four numbers an item: two under the key, then two under the new one. What is compared under the one and
// what is kept under the other come from the same registers, so nothing can change between them.
KERNEL void fingerprint_renew(const Item* items, u32 count, const Key* key, const Key* renewed, u64* out) {
  SHARED u32x2 first[2][STEPS][32];
  SHARED u64 sums[4][THREADS];
  const Key* keys[2] = { key, renewed };
  fingerprints<2>(items, count, keys, out, first, sums);
}
