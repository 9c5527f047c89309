// ChaCha20-Poly1305 (RFC 8439, no associated data) of segments: a block a segment.
//
// Opening reads the ciphertext twice, first for its tag. Only if that is good is it decrypted, so that
// no byte is released, nor overwritten in place, that was not authenticated.
#include "gpu.h"

#define LOG_THREADS 8
#define BLOCK 64     // bytes of one block of key stream
#define GOOD 0x600D600D
#define BAD 0xBAD0BAD0

// ABI, 32 bytes. The nonce is `last` as a byte, three zeros, and `index` as eight bytes in big-endian order.
struct Segment {
  u64 source;  // address of the first byte; a multiple of 16
  u64 target;  // the same place, or one that shares no byte with it; a multiple of 16
  u32 len;     // bytes, 0 to 16 MiB
  u32 index;   // number of the segment
  u32 last;    // 1: the last segment
  u32 unused;
};
static_assert(sizeof(Segment) == 32, "ABI");

// ABI, 32 bytes.
struct Key {
  u32 word[8];
};
// ABI, 16 bytes.
struct Tag {
  u32 word[4];
};

FN u32 swap_bytes(u32 x) { return (x >> 24) | ((x >> 8) & 0xFF00) | ((x << 8) & 0xFF0000) | (x << 24); }

FN void quarter(u32* v, int a, int b, int c, int d, u32 one) {
  v[a] = add(v[b], v[a], one);
  v[d] = rotate_left(v[d] ^ v[a], 16);
  v[c] = add(v[d], v[c], one);
  v[b] = rotate_left(v[b] ^ v[c], 12);
  v[a] = add(v[b], v[a], one);
  v[d] = rotate_left(v[d] ^ v[a], 8);
  v[c] = add(v[d], v[c], one);
  v[b] = rotate_left(v[b] ^ v[c], 7);
}

// A block of key stream for a segment.
FN void key_stream(u32* v, const u32* key, u32 counter, const Segment& segment, u32 one) {
  u32 const start[16] = { 0x61707865, 0x3320646e, 0x79622d32, 0x6b206574,
                          key[0], key[1], key[2], key[3], key[4], key[5], key[6], key[7],
                          counter, segment.last, 0, swap_bytes(segment.index) };
  UNROLL
  for (int i = 0; i < 16; i++) v[i] = start[i];
  UNROLL
  for (int round = 0; round < 10; round++) {
    quarter(v, 0, 4, 8, 12, one);
    quarter(v, 1, 5, 9, 13, one);
    quarter(v, 2, 6, 10, 14, one);
    quarter(v, 3, 7, 11, 15, one);
    quarter(v, 0, 5, 10, 15, one);
    quarter(v, 1, 6, 11, 12, one);
    quarter(v, 2, 7, 8, 13, one);
    quarter(v, 3, 4, 9, 14, one);
  }
  UNROLL
  for (int i = 0; i < 16; i++) v[i] += start[i];
}

// a * b + c in 64 bits. Written out: the compiler widens the factors first, and the assembler then adds
// zeros to their upper halves, which makes 100 instructions of 70.
FN u64 multiply_add(u32 a, u32 b, u64 c) {
  u64 d;
  asm("mad.wide.u32 %0, %1, %2, %3;" : "=l"(d) : "r"(a), "r"(b), "l"(c));
  return d;
}

// A number modulo 2^130 - 5, in five limbs of 26 bits.
struct Number {
  u32 limb[5];
};
#define LIMB 0x3FFFFFF

// h * r + a, with limbs below 2^26 (the second: below 2^26 + 64). Limbs of h and a may be twice as large,
// but not larger: a sum has to go in here as `a`. Added afterwards, it would grow from level to level.
FN Number multiply_add(const Number& h, const Number& r, const Number& a) {
  // r.limb[i] * 5, for what wraps around: 2^130 is 5.
  u32 s1 = r.limb[1] * 5, s2 = r.limb[2] * 5, s3 = r.limb[3] * 5, s4 = r.limb[4] * 5;
  u64 d0 = a.limb[0], d1 = a.limb[1], d2 = a.limb[2], d3 = a.limb[3], d4 = a.limb[4];
#define ROW(i, f0, f1, f2, f3, f4)            \
  d0 = multiply_add(h.limb[i], f0, d0);       \
  d1 = multiply_add(h.limb[i], f1, d1);       \
  d2 = multiply_add(h.limb[i], f2, d2);       \
  d3 = multiply_add(h.limb[i], f3, d3);       \
  d4 = multiply_add(h.limb[i], f4, d4);
  ROW(0, r.limb[0], r.limb[1], r.limb[2], r.limb[3], r.limb[4])
  ROW(1, s4, r.limb[0], r.limb[1], r.limb[2], r.limb[3])
  ROW(2, s3, s4, r.limb[0], r.limb[1], r.limb[2])
  ROW(3, s2, s3, s4, r.limb[0], r.limb[1])
  ROW(4, s1, s2, s3, s4, r.limb[0])
#undef ROW
  d1 += (u32)(d0 >> 26);
  d2 += d1 >> 26;
  d3 += d2 >> 26;
  d4 += d3 >> 26;
  u32 low = ((u32)d0 & LIMB) + (u32)(d4 >> 26) * 5;
  Number sum;
  sum.limb[0] = low & LIMB;
  sum.limb[1] = ((u32)d1 & LIMB) + (low >> 26);
  sum.limb[2] = (u32)d2 & LIMB;
  sum.limb[3] = (u32)d3 & LIMB;
  sum.limb[4] = (u32)d4 & LIMB;
  return sum;
}
FN Number zero() { return Number { { 0, 0, 0, 0, 0 } }; }
FN Number multiply(const Number& h, const Number& r) { return multiply_add(h, r, zero()); }

// Adds 16 bytes of the message, and the bit that Poly1305 puts after them.
FN void add_block(Number& h, u32 w0, u32 w1, u32 w2, u32 w3) {
  h.limb[0] += w0 & LIMB;
  h.limb[1] += ((w1 << 6) | (w0 >> 26)) & LIMB;
  h.limb[2] += ((w2 << 12) | (w1 >> 20)) & LIMB;
  h.limb[3] += ((w3 << 18) | (w2 >> 14)) & LIMB;
  h.limb[4] += (w3 >> 8) | (1 << 24);
}

// Shared memory of a block. It holds keys, and the tag that a forger looks for: `leave` sets it to zero.
struct alignas(u64) Shared {
  Number power[LOG_THREADS + 1];  // r^(2^i)
  Number part[2][THREADS];
  u32 pad[4];                     // s of RFC 8439
  u32 tag[4];
  u32 good;
  u32 key[8];
};

// h * r, fully reduced, plus the pad: the tag.
FN void finish(Shared& shared, const Number& sum) {
  Number h = multiply(sum, shared.power[0]);
  u32 carry = 0;
  for (int turn = 0; turn < 2; turn++) {
    for (int i = 0; i < 5; i++) {
      h.limb[i] += carry;
      carry = h.limb[i] >> 26;
      h.limb[i] &= LIMB;
    }
    carry *= 5;
  }
  h.limb[0] += carry;
  // h - p, taken if it is not negative.
  u32 less[5];
  carry = 5;
  for (int i = 0; i < 5; i++) {
    less[i] = h.limb[i] + carry;
    carry = less[i] >> 26;
    less[i] &= LIMB;
  }
  u32 take = 0u - carry;
  for (int i = 0; i < 5; i++) h.limb[i] = (h.limb[i] & ~take) | (less[i] & take);
  u32 word[4] = { h.limb[0] | (h.limb[1] << 26), (h.limb[1] >> 6) | (h.limb[2] << 20),
                  (h.limb[2] >> 12) | (h.limb[3] << 14), (h.limb[3] >> 18) | (h.limb[4] << 8) };
  u64 wide = 0;
  for (int i = 0; i < 4; i++) {
    wide += (u64)word[i] + shared.pad[i];
    shared.tag[i] = (u32)wide;
    wide >>= 32;
  }
}

// The tag of `len` bytes at `at`, to shared.tag; shared.key has the key. Thread t takes the blocks
// t, t + 256, ... of the message with as many zeros before it as make its length a multiple of 256
// blocks: they add nothing. The parts are then merged pairwise.
FN void authenticate(Shared& shared, Bytes at, const Segment& segment, u32 one) {
  u32 tid = thread_id(), len = segment.len;
  if (tid == 0) {
    u32 v[16];
    key_stream(v, shared.key, 0, segment, one);
    u32 r0 = v[0] & 0x0FFFFFFF, r1 = v[1] & 0x0FFFFFFC, r2 = v[2] & 0x0FFFFFFC, r3 = v[3] & 0x0FFFFFFC;
    Number r = { { r0 & LIMB, ((r1 << 6) | (r0 >> 26)) & LIMB, ((r2 << 12) | (r1 >> 20)) & LIMB,
                   ((r3 << 18) | (r2 >> 14)) & LIMB, r3 >> 8 } };
    for (int i = 0; i < 4; i++) shared.pad[i] = v[4 + i];
    shared.power[0] = r;
    NO_UNROLL
    for (int i = 1; i <= LOG_THREADS; i++) {
      r = multiply(r, r);
      shared.power[i] = r;
    }
  }
  barrier();
  // The last block of the message has the lengths.
  u32 data = (len + 15) / 16, blocks = data + 1;
  u32 block = tid - ((0u - blocks) % THREADS);
  if ((i32)block < 0) block += THREADS;
  Number h = zero();
  const Number step = shared.power[LOG_THREADS];
  NO_UNROLL
  for (; block + THREADS < data; block += THREADS) {
    u32x4 quad = ((Quads)at)[block];
    add_block(h, quad[0], quad[1], quad[2], quad[3]);
    h = multiply(h, step);
  }
  for (; block < blocks; block += THREADS) {
    if (block < data) {
      u32x4 quad = load_quad(at + ((u64)block * 16), len - block * 16);
      add_block(h, quad[0], quad[1], quad[2], quad[3]);
    } else {
      add_block(h, 0, 0, len, 0);
    }
    if (block + THREADS < blocks) h = multiply(h, step);
  }
  shared.part[0][tid] = h;
  barrier();
  for (u32 level = 0; level < LOG_THREADS; level++) {
    if (tid < (THREADS >> (level + 1))) {
      const Number* from = shared.part[level & 1];
      shared.part[(level & 1) ^ 1][tid] = multiply_add(from[2 * tid], shared.power[level], from[2 * tid + 1]);
    }
    barrier();
  }
  if (tid == 0) finish(shared, shared.part[LOG_THREADS & 1][0]);
  barrier();
}

// The segment XOR its key stream, from its source to its target: a thread a block.
FN void cipher(const u32* key, const Segment& segment, u32 one) {
  u32 len = segment.len;
  NO_UNROLL
  for (u32 block = thread_id(); block < (len + BLOCK - 1) / BLOCK; block += THREADS) {
    u32 v[16];
    key_stream(v, key, block + 1, segment, one);
    u32 at = block * BLOCK;
    Bytes from = (Bytes)segment.source + at;
    BytesOut to = (BytesOut)segment.target + at;
    if (len - at >= BLOCK) {
      UNROLL
      for (int i = 0; i < 4; i++) {
        u32x4 quad = ((Quads)from)[i];
        for (int j = 0; j < 4; j++) quad[j] ^= v[4 * i + j];
        ((QuadsOut)to)[i] = quad;
      }
    } else {
      UNROLL
      for (u32 i = 0; i < BLOCK; i++)
        if (at + i < len) to[i] = from[i] ^ (u8)(v[i / 4] >> (8 * (i % 4)));
    }
  }
}

FN void fetch_key(Shared& shared, const Key* keys) {
  if (thread_id() < 8) shared.key[thread_id()] = keys[block_id()].word[thread_id()];
  barrier();
}

// The end of a block.
FN void leave(Shared& shared) {
  barrier();
  wipe(shared);
}

// Checks the tag of each segment, and decrypts it if that is good. The verdict is GOOD or BAD.
KERNEL void chacha_open(const Segment* segments, const Key* keys, const Tag* tags, u32* verdicts, u32 one) {
  SHARED Shared shared;
  const Segment segment = segments[block_id()];
  fetch_key(shared, keys);
  authenticate(shared, (Bytes)segment.source, segment, one);
  if (thread_id() == 0) {
    u32 differ = 0;
    for (int i = 0; i < 4; i++) differ |= shared.tag[i] ^ tags[block_id()].word[i];
    shared.good = differ == 0;
    verdicts[block_id()] = differ == 0 ? GOOD : BAD;
  }
  barrier();
  if (shared.good) cipher(shared.key, segment, one);
  leave(shared);
}

// Encrypts each segment, and writes its tag.
KERNEL void chacha_seal(const Segment* segments, const Key* keys, Tag* tags, u32 one) {
  SHARED Shared shared;
  const Segment segment = segments[block_id()];
  fetch_key(shared, keys);
  cipher(shared.key, segment, one);
  // Threads read what others wrote: there is a barrier before the first such read.
  authenticate(shared, (Bytes)segment.target, segment, one);
  if (thread_id() < 4) tags[block_id()].word[thread_id()] = shared.tag[thread_id()];
  leave(shared);
}

// The tag of each sealed segment, which is not opened.
KERNEL void chacha_tag(const Segment* segments, const Key* keys, Tag* tags, u32 one) {
  SHARED Shared shared;
  const Segment segment = segments[block_id()];
  fetch_key(shared, keys);
  authenticate(shared, (Bytes)segment.source, segment, one);
  if (thread_id() < 4) tags[block_id()].word[thread_id()] = shared.tag[thread_id()];
  leave(shared);
}
