// The inner loops of both passes of attention (docs/spec/tensor.md, A4 to A6) as one thread runs them on the accumulators of an
// int8 tensor-core tile: 1 query row x 16 keys a step. Compiled for its instruction count (docs/adr/0037-softmax-in-32-bits.md), not linked
// into anything.
#include <stdint.h>

#define KEYS 16

__device__ __forceinline__ uint32_t mad_high(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t d;
    asm("mad.hi.u32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

// PTX shifts clamp at 32, C++ leaves them undefined.
__device__ __forceinline__ uint32_t shift_right(uint32_t x, uint32_t n) {
    uint32_t d;
    asm("shr.u32 %0, %1, %2;" : "=r"(d) : "r"(x), "r"(n));
    return d;
}

__device__ __forceinline__ void load(int *to, const int *from) {
#pragma unroll
    for (int i = 0; i < KEYS; i += 4) *(int4 *)(to + i) = *(const int4 *)(from + i);
}

// A row's numbers: a of A4, -C, m + 2^F - 1, F, -2^(32 - F).
struct Row {
    int a, minus_c, m, f, up;
};

extern "C" __global__ void pass1(const int *dots, const int *fk, int a, int *out, int n) {
    int best = INT32_MIN;
    const int *s = dots + threadIdx.x * KEYS;
#pragma unroll 1
    for (int t = 0; t < n; t += KEYS) {
        int dot[KEYS], k[KEYS];
        load(dot, s + t * 32);
        load(k, fk + t);
#pragma unroll
        for (int i = 0; i < KEYS; i++) best = max(best, __mulhi(dot[i] << a, k[i]));
    }
    out[threadIdx.x] = best;
}

extern "C" __global__ void pass2(const int *dots, const int *fk, const int *fv, const int *dither, Row row, uint32_t *planes,
                                 unsigned long long *zs, int n) {
    unsigned long long z = 0;
    const int *s = dots + threadIdx.x * KEYS;
    uint32_t up = (uint32_t)row.up;
#pragma unroll 1
    for (int t = 0; t < n; t += KEYS) {
        int dot[KEYS], k[KEYS], v[KEYS], d[KEYS];
        uint32_t p[KEYS];
        load(dot, s + t * 32);
        load(k, fk + t);
        load(v, fv + t);
        load(d, dither + t);
#pragma unroll
        for (int i = 0; i < KEYS; i++) {
            int y = __mulhi(dot[i] << row.a, k[i]);
            uint32_t over = (uint32_t)(__mulhi(y, row.minus_c) + row.m); // z + 2^F - 1
            uint32_t g = over * up + up;                                 // (NOT over) << (32 - F)
            uint32_t q = mad_high(29109857u, g, 111735252u);
            q = mad_high(q, g, 518343275u);
            q = mad_high(q, g, 1488229728u);
            q = mad_high(q, g, 2147418112u);
            uint32_t e = shift_right(q, shift_right(over, row.f));
            z += e;
            p[i] = mad_high(e, (uint32_t)v[i], (uint32_t)d[i]); // 256 P: its planes are bytes 1 and 2
        }
#pragma unroll
        for (int i = 0; i < KEYS; i += 4) {
            uint32_t a = __byte_perm(p[i], p[i + 1], 0x6251), b = __byte_perm(p[i + 2], p[i + 3], 0x6251);
            planes[(t + i) / 2 * 32 + threadIdx.x] = __byte_perm(a, b, 0x5410);
            planes[(t + i) / 2 * 32 + threadIdx.x + 32] = __byte_perm(a, b, 0x7632);
        }
    }
    zs[threadIdx.x] = z;
}
