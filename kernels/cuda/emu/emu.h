// The emulated GPU as kernels see it: CUDA's names for a host compiler (see ../gpu.h for what they mean).
//
// A thread is a fiber that runs until a barrier or a warp operation. Nothing here is fast in the way of a GPU; it is exact, and it
// is stricter: shared memory starts as a pattern, asynchronous copies land as late as the rules allow (or as early,
// by the seed of the launch), misaligned vector loads show under the undefined-behaviour sanitiser, and threads that wait at
// different barriers end the launch with an error.
#pragma once
#include "../types.h"

#define DEVICE static inline
#define METHOD inline
#define UNROLL
#define NO_UNROLL
#define UNROLL_4
#define UNROLL_2
#define KERNEL(name, Args) KERNEL_BOUNDS(name, Args, 1024, 1)
#define KERNEL_BOUNDS(name, Args, threads, blocks)                                                              \
    static void name(const Args a);                                                                             \
    static void name##_run(const void* args) { name(*static_cast<const Args*>(args)); }                         \
    static emu::Kernel name##_kernel(#name, sizeof(Args), threads, name##_run);                                 \
    static void name(const Args a)
// The variable's key is an address of its own; the block's memory for it is found by that.
#define SHARED(T, name)    \
    static u8 name##_key_; \
    auto& name = *static_cast<Same<T>*>(emu::shared_variable(&name##_key_, sizeof(Same<T>)))
#define DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(emu::dynamic_shared())

struct uint3 {
    u32 x, y, z;
};
struct alignas(8) uint2 {
    u32 x, y;
};
struct alignas(8) int2 {
    i32 x, y;
};
struct alignas(16) uint4 {
    u32 x, y, z, w;
};
struct alignas(16) int4 {
    i32 x, y, z, w;
};
static inline uint2 make_uint2(u32 x, u32 y) { return {x, y}; }
static inline int2 make_int2(i32 x, i32 y) { return {x, y}; }
static inline uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return {x, y, z, w}; }
static inline int4 make_int4(i32 x, i32 y, i32 z, i32 w) { return {x, y, z, w}; }

namespace emu {

// A kernel by name; constructing one puts it on the list.
struct Kernel {
    const char* name;
    unsigned long args_len;
    u32 max_block;
    void (*run)(const void* args);
    Kernel* next;
    Kernel(const char* name, unsigned long args_len, u32 max_block, void (*run)(const void*));
};

// What the lanes of a warp wait for together.
enum class Op : u32 { None, Barrier, Sync, Shuffle, Ballot, Mma, MmaUnsigned, Matrix };

// What a lane brings to a warp operation and takes from it.
struct Slot {
    u64 value, result;
    u32 from;         // lane that a shuffle reads
    const void* row;  // address that ldmatrix reads
    u32 a[4], b[2];
    i32 d[4];
};

// The calling thread.
struct Place {
    uint3 thread, block, block_dim, grid_dim;
    u32 lane;
    Slot slot;
};
extern thread_local Place* here;

void* shared_variable(const void* key, unsigned long bytes);
void* dynamic_shared();
void barrier();
// Meets the lanes of `mask` at `op`; the last of them does the operation for all.
void meet(Op op, u32 mask);
void copy_start(void* to, const void* from, u32 bytes, bool valid);
void copy_commit();
void copy_wait(u32 groups);

// A value of 4 or 8 bytes through the warp.
template <class T>
T shuffle(u32 mask, T value, u32 from) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    Slot& s = here->slot;
    s.value = 0;
    __builtin_memcpy(&s.value, &value, sizeof(T));
    s.from = from & 31;
    meet(Op::Shuffle, mask);
    __builtin_memcpy(&value, &here->slot.result, sizeof(T));
    return value;
}

static inline u32 ballot(u32 mask, bool vote) {
    here->slot.value = vote;
    meet(Op::Ballot, mask);
    return static_cast<u32>(here->slot.result);
}

template <int Count>
void load_matrices(u32 (&r)[Count], const void* row) {
    here->slot.row = row;
    here->slot.from = Count;
    meet(Op::Matrix, 0xffffffffu);
    for (int i = 0; i < Count; i++) r[i] = here->slot.a[i];
}

static inline void mma(Op op, i32 (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    Slot& s = here->slot;
    for (int i = 0; i < 4; i++) s.a[i] = a[i], s.d[i] = d[i];
    for (int i = 0; i < 2; i++) s.b[i] = b[i];
    meet(op, 0xffffffffu);
    for (int i = 0; i < 4; i++) d[i] = s.d[i];
}

template <class T>
T atomic_max(T* p, T v) {
    T old = *p;
    if (v > old) *p = v;
    return old;
}

// c + the sum of products of bytes as the two types read them; wraps as the hardware does.
template <class A, class B>
u32 dot4(u32 a, u32 b, u32 c) {
    for (int i = 0; i < 32; i += 8) {
        c += static_cast<u32>(static_cast<i32>(static_cast<A>(a >> i)) * static_cast<i32>(static_cast<B>(b >> i)));
    }
    return c;
}

} // namespace emu

#define threadIdx (emu::here->thread)
#define blockIdx (emu::here->block)
#define blockDim (emu::here->block_dim)
#define gridDim (emu::here->grid_dim)

static inline void __syncthreads() { emu::barrier(); }
static inline void __syncwarp(u32 mask = 0xffffffffu) { emu::meet(emu::Op::Sync, mask); }
static inline void __threadfence() {}
static inline void __threadfence_block() {}
template <class T>
T __shfl_sync(u32 mask, T v, int from) {
    return emu::shuffle(mask, v, static_cast<u32>(from));
}
template <class T>
T __shfl_xor_sync(u32 mask, T v, int bits) {
    return emu::shuffle(mask, v, emu::here->lane ^ static_cast<u32>(bits));
}
// Past the end of the warp a lane keeps its own value.
template <class T>
T __shfl_down_sync(u32 mask, T v, u32 by) {
    u32 l = emu::here->lane;
    return emu::shuffle(mask, v, l + by > 31 ? l : l + by);
}
template <class T>
T __shfl_up_sync(u32 mask, T v, u32 by) {
    u32 l = emu::here->lane;
    return emu::shuffle(mask, v, by > l ? l : l - by);
}
static inline u32 __ballot_sync(u32 mask, bool vote) { return emu::ballot(mask, vote); }
static inline int __any_sync(u32 mask, bool vote) { return emu::ballot(mask, vote) != 0; }
static inline int __all_sync(u32 mask, bool vote) { return emu::ballot(mask, !vote) == 0; }

static inline i32 __dp4a(i32 a, i32 b, i32 c) {
    return static_cast<i32>(emu::dot4<i8, i8>(static_cast<u32>(a), static_cast<u32>(b), static_cast<u32>(c)));
}
static inline u32 __dp4a(u32 a, u32 b, u32 c) { return emu::dot4<u8, u8>(a, b, c); }
static inline i32 dp4a_us(u32 a, u32 b, i32 c) { return static_cast<i32>(emu::dot4<u8, i8>(a, b, static_cast<u32>(c))); }
static inline i32 __mulhi(i32 a, i32 b) { return static_cast<i32>((static_cast<i64>(a) * b) >> 32); }
static inline u32 __umulhi(u32 a, u32 b) { return static_cast<u32>((static_cast<u64>(a) * b) >> 32); }
static inline i64 __mul64hi(i64 a, i64 b) { return static_cast<i64>((static_cast<__int128>(a) * b) >> 64); }
static inline u64 __umul64hi(u64 a, u64 b) { return static_cast<u64>((static_cast<unsigned __int128>(a) * b) >> 64); }
static inline int __clz(i32 x) { return x == 0 ? 32 : __builtin_clz(static_cast<u32>(x)); }
static inline int __clzll(i64 x) { return x == 0 ? 64 : __builtin_clzll(static_cast<u64>(x)); }
static inline int __popc(u32 x) { return __builtin_popcount(x); }
static inline int __popcll(u64 x) { return __builtin_popcountll(x); }
static inline int __ffs(i32 x) { return __builtin_ffs(x); }
static inline u32 __funnelshift_l(u32 lo, u32 hi, u32 n) {
    return static_cast<u32>((((static_cast<u64>(hi) << 32) | lo) << (n & 31)) >> 32);
}
static inline u32 __funnelshift_r(u32 lo, u32 hi, u32 n) {
    return static_cast<u32>(((static_cast<u64>(hi) << 32) | lo) >> (n & 31));
}
// Bytes of (y, x), x the low half, picked by the nibbles of s; a nibble's top bit copies the byte's sign.
static inline u32 __byte_perm(u32 x, u32 y, u32 s) {
    u64 all = (static_cast<u64>(y) << 32) | x;
    u32 out = 0;
    for (u32 i = 0; i < 4; i++) {
        u32 n = (s >> (4 * i)) & 15;
        u32 byte = static_cast<u32>(all >> (8 * (n & 7))) & 255;
        if (n & 8) byte = (byte & 128) ? 255 : 0;
        out |= byte << (8 * i);
    }
    return out;
}

static inline i32 min(i32 a, i32 b) { return a < b ? a : b; }
static inline u32 min(u32 a, u32 b) { return a < b ? a : b; }
static inline i64 min(i64 a, i64 b) { return a < b ? a : b; }
static inline u64 min(u64 a, u64 b) { return a < b ? a : b; }
static inline i32 max(i32 a, i32 b) { return a > b ? a : b; }
static inline u32 max(u32 a, u32 b) { return a > b ? a : b; }
static inline i64 max(i64 a, i64 b) { return a > b ? a : b; }
static inline u64 max(u64 a, u64 b) { return a > b ? a : b; }

static inline i32 atomicMax(i32* p, i32 v) { return emu::atomic_max(p, v); }
static inline u32 atomicMax(u32* p, u32 v) { return emu::atomic_max(p, v); }
static inline i64 atomicMax(i64* p, i64 v) { return emu::atomic_max(p, v); }
static inline u64 atomicMax(u64* p, u64 v) { return emu::atomic_max(p, v); }
static inline u32 atomicAdd(u32* p, u32 v) {
    u32 old = *p;
    *p = old + v;
    return old;
}
static inline u64 atomicAdd(u64* p, u64 v) {
    u64 old = *p;
    *p = old + v;
    return old;
}
static inline i32 atomicAdd(i32* p, i32 v) {
    i32 old = *p;
    *p = static_cast<i32>(static_cast<u32>(old) + static_cast<u32>(v));
    return old;
}

static inline uint4 load_once(const void* p) { return *static_cast<const uint4*>(p); }
static inline void mma_s8(i32 (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) { emu::mma(emu::Op::Mma, d, a, b); }
static inline void mma_u8s8(i32 (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) { emu::mma(emu::Op::MmaUnsigned, d, a, b); }
static inline void ldmatrix_x4(u32 (&r)[4], const void* row) { emu::load_matrices<4>(r, row); }
static inline void ldmatrix_x2(u32 (&r)[2], const void* row) { emu::load_matrices<2>(r, row); }
static inline void cp_async16(void* to, const void* from, bool valid = true) { emu::copy_start(to, from, 16, valid); }
static inline void cp_async8(void* to, const void* from) { emu::copy_start(to, from, 8, true); }
static inline void cp_async_commit() { emu::copy_commit(); }
template <int N>
void cp_async_wait() {
    emu::copy_wait(N);
}
