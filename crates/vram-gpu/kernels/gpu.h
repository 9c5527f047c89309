// What the kernels share. They are compiled by clang alone, without a toolkit of NVIDIA's.
//
//   cargo xtask ptx            writes the .ptx files beside these sources
//   cargo xtask ptx --check    compares them, and checks what an assembler makes of them
//
// Rules for all kernels. A block has 256 threads. Addresses of bytes are multiples of 16, and no byte
// past the end of a span is read. Structs marked ABI have the layout that Rust writes.
#pragma once

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;
typedef u32 u32x2 __attribute__((ext_vector_type(2)));
typedef u32 u32x4 __attribute__((ext_vector_type(4)));

// Pointers to device memory say so: a load through a generic pointer would be slower.
#define GLOBAL_MEMORY __attribute__((address_space(1)))
typedef const GLOBAL_MEMORY u8* Bytes;
typedef GLOBAL_MEMORY u8* BytesOut;
typedef const GLOBAL_MEMORY u32x4* Quads;
typedef GLOBAL_MEMORY u32x4* QuadsOut;

#define SHARED_MEMORY __attribute__((address_space(3)))

#define THREADS 256
// At most 64 registers a thread, so that four blocks share a multiprocessor: `ptx --check` sees to it.
#define KERNEL extern "C" __attribute__((global, launch_bounds(THREADS, 1)))
#define FN static __attribute__((device, always_inline)) inline
#define SHARED __attribute__((shared)) static
#define UNROLL _Pragma("unroll")
#define NO_UNROLL _Pragma("unroll 1")

FN u32 thread_id() { return __nvvm_read_ptx_sreg_tid_x(); }
FN u32 block_id() { return __nvvm_read_ptx_sreg_ctaid_x(); }
FN u32 block_count() { return __nvvm_read_ptx_sreg_nctaid_x(); }
// Waits for all threads of the block, and makes what they wrote to shared memory visible to them.
FN void barrier() { __nvvm_bar_sync(0); }

// Sets a variable in shared memory to zero, padding included. No later block does it: the last block of a
// multiprocessor has none after it. All threads call it, after a barrier that ends every use of the
// variable. The stores are volatile, or compiler and assembler could drop them: nothing reads them.
template <typename T>
FN void wipe(T& variable) {
  static_assert(sizeof(T) % sizeof(u64) == 0 && alignof(T) % alignof(u64) == 0, "whole double words");
  volatile SHARED_MEMORY u64* words = (volatile SHARED_MEMORY u64*)&variable;
  const u32 count = sizeof(T) / sizeof(u64), rest = count % THREADS;
  UNROLL
  for (u32 from = 0; from < count - rest; from += THREADS) words[from + thread_id()] = 0;
  if (thread_id() < rest) words[count - rest + thread_id()] = 0;
}

FN u32 rotate_right(u32 x, u32 n) { return (x >> n) | (x << (32 - n)); }
FN u32 rotate_left(u32 x, u32 n) { return (x << n) | (x >> (32 - n)); }

// x + y, as a multiplication by a 1 that no compiler can see: `one` is an argument of the kernel.
// Logic, shifts and additions share one unit, which is the bound of hashes and ciphers, while the
// multiplier beside it is idle. This takes a fifth to a third off that unit.
FN u32 add(u32 x, u32 y, u32 one) { return x * one + y; }

// The word at byte `at` of `len` bytes; bytes past the end count as zero.
FN u32 load_word(Bytes bytes, u32 at, u32 len) {
  u32 word = 0;
  for (u32 i = 0; i < 4; i++)
    if (at + i < len) word |= (u32)bytes[at + i] << (8 * i);
  return word;
}

// The first 16 of `len` bytes; bytes past the end count as zero.
FN u32x4 load_quad(Bytes bytes, u32 len) {
  if (len >= 16) return *(Quads)bytes;
  u32x4 quad;
  for (u32 i = 0; i < 4; i++) quad[i] = load_word(bytes, 4 * i, len);
  return quad;
}
