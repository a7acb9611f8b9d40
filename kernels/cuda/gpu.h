// What a GPU is to the kernels: the words that the compilers disagree on, in one place.
//
// Every .cu file is compiled twice from one source: by NVRTC for real GPUs, where this header gives wrappers
// for what has no C++ form, and by a host compiler with the emulated GPU of emu/emu.h, where it gives the whole of CUDA
// that kernels use. Rules for kernels:
//   - a kernel is KERNEL(name, Args) { ... }, its arguments are `a`; helpers are DEVICE functions, members METHOD;
//   - shared memory is SHARED(T, name) (T may be an array type: SHARED(u32[32], sums)) or DYNAMIC_SHARED(T, name),
//     never a bare __shared__: the emulator fills both with a pattern before every block, so that reading
//     what nobody wrote shows as a wrong result;
//   - no float, no host header, no reliance on signed overflow or on left shifts of negative numbers;
//   - all threads that a mask names take part in a warp operation, all threads of a block in a barrier.
#pragma once
#include "types.h"

// Threads of a warp, and the mask that names all of them.
static constexpr u32 WARP = 32;
static constexpr u32 FULL = 0xffffffffu;

// T itself; lets array types stand before a name in macros.
template <class T>
using Same = T;

#if defined(__CUDACC__)

#define DEVICE static __device__ __forceinline__
#define METHOD __device__ __forceinline__
#define UNROLL _Pragma("unroll")
#define NO_UNROLL _Pragma("unroll 1")
#define UNROLL_4 _Pragma("unroll 4")
#define UNROLL_2 _Pragma("unroll 2")
// Launchable with any block up to 1,024 threads.
#define KERNEL(name, Args) KERNEL_BOUNDS(name, Args, 1024, 1)
// At most `threads` a block; registers are cut so that `blocks` of them fit a multiprocessor.
#define KERNEL_BOUNDS(name, Args, threads, blocks) \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(const __grid_constant__ Args a)
#define SHARED(T, name) __shared__ __align__(16) Same<T> name
#define DYNAMIC_SHARED(T, name)                             \
    extern __shared__ __align__(16) u8 dynamic_shared_[]; \
    T* const name = reinterpret_cast<T*>(dynamic_shared_)

// A pointer into shared memory as the 32-bit address that inline PTX takes.
DEVICE u32 shared_address(const void* p) { return static_cast<u32>(__cvta_generic_to_shared(p)); }

// 16 bytes of device memory that this kernel reads once and nobody writes meanwhile: passes by the first-level cache.
DEVICE uint4 load_once(const void* p) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}

// c + sum of four products: unsigned bytes of a, signed bytes of b. (__dp4a is the signed form.)
DEVICE i32 dp4a_us(u32 a, u32 b, i32 c) {
    i32 d;
    asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

#if __CUDA_ARCH__ >= 800
#define MMA_8(types)                                                                                              \
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32." types ".s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, " \
                 "{%0, %1, %2, %3};"                                                                              \
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])                                                 \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
#else
// Turing multiplies 8 x 16 by 16 x 8. Its fragments are quarters of the larger ones, register by register.
#define MMA_8_PART(types, x, y, p, q)                                                                          \
    asm volatile("mma.sync.aligned.m8n8k16.row.col.s32." types ".s32 {%0, %1}, {%2}, {%3}, {%0, %1};"            \
                 : "+r"(d[x]), "+r"(d[y])                                                                      \
                 : "r"(a[p]), "r"(b[q]))
#define MMA_8(types)               \
    MMA_8_PART(types, 0, 1, 0, 0); \
    MMA_8_PART(types, 0, 1, 2, 1); \
    MMA_8_PART(types, 2, 3, 1, 0); \
    MMA_8_PART(types, 2, 3, 3, 1)
#endif

// d += a * b over a warp: a is 16 x 32 signed bytes, b 32 x 8 signed bytes, d 16 x 8. With g = lane / 4 and t = lane % 4:
//   a[0], a[1]: rows g and g + 8 at columns 4t .. 4t + 4; a[2], a[3]: the same rows at columns 16 + 4t ...
//   b[0], b[1]: rows 4t .. 4t + 4 and 16 + 4t ... of column g (so 4 consecutive k of output column g)
//   d[0], d[1]: row g, columns 2t and 2t + 1; d[2], d[3]: row g + 8.
// Bytes of a register ascend from its lowest.
DEVICE void mma_s8(i32 (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) { MMA_8("s8.s8"); }

// The same with unsigned bytes in a.
DEVICE void mma_u8s8(i32 (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) { MMA_8("u8.s8"); }

// Four 8 x 16-byte matrices from shared memory: lane i gives the address of row i % 8 of matrix i / 8 (16-byte aligned);
// r[m] is bytes 4 (lane % 4) .. of row lane / 4 of matrix m.
DEVICE void ldmatrix_x4(u32 (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// Two such matrices; lanes 0 to 15 give addresses (the others' are not read).
DEVICE void ldmatrix_x2(u32 (&r)[2], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}

// Starts copying 16 bytes from device to shared memory (both 16-byte aligned); with `valid` false writes zeros and
// reads nothing. Done for the calling thread after cp_async_wait, for others after a barrier behind that.
DEVICE void cp_async16(void* to, const void* from, bool valid = true) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(valid ? 16 : 0)
                 : "memory");
#else
    *static_cast<uint4*>(to) = valid ? *static_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0);
#endif
}

// The same for 8 bytes, 8-byte aligned.
DEVICE void cp_async8(void* to, const void* from) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(shared_address(to)), "l"(from) : "memory");
#else
    *static_cast<uint2*>(to) = *static_cast<const uint2*>(from);
#endif
}

// Closes a group of copies.
DEVICE void cp_async_commit() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most the N youngest groups of this thread are under way.
template <int N>
DEVICE void cp_async_wait() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

#else
#include "emu/emu.h"
#endif
