// Linear for every shape (rules L1 to L5): one warp an output element.
//
// Bytes: every warp reads a weight row and an activation row, so weights are read once for each activation row; operations: k products in
// 32 bits with a 64-bit sum each. This is the kernel for shapes that the fast ones do not take (odd k, rows that are not
// aligned, segments that are not whole steps) and the one they are compared with; its speed does not matter.
//
// grid (ceil(n / warps), rows or fewer), block any multiple of 32 (warps = block / 32). No shared memory.
#include "linear.h"
#include "reduce.h"

namespace linear_plain {

// L1: the sum over elements from .. to of a row and an output, by a warp.
DEVICE i64 segment_sum(const LinearArgs& a, u32 row, u32 out, u32 from, u32 to) {
    const i8* w = a.w + static_cast<u64>(out) * a.k;
    const i8* hi = a.hi + static_cast<u64>(row) * a.k;
    const i8* lo = a.planes == 2 ? a.lo + static_cast<u64>(row) * a.k : nullptr;
    const u8* mult = a.mult ? a.mult + static_cast<u64>(out) * (a.k / GROUP) : nullptr;
    i64 acc = 0;
    for (u32 i = from + threadIdx.x % WARP; i < to; i += WARP) {
        i32 x = hi[i];
        if (lo) x = 256 * x + lo[i];
        // At most 2^15 * 2^7 * 2^8 = 2^30.
        i32 product = x * w[i];
        if (mult) product *= mult[i / GROUP];
        acc += product;
    }
    return warp_reduce<Sum>(acc);
}

} // namespace linear_plain

KERNEL(linear_any, LinearArgs) {
    const u32 out = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (out >= a.n) return;
    const u32 length = a.k / a.segments;
    const i32 limit = segment_limit(a.segments);
    for (u32 row = blockIdx.y; row < a.rows; row += gridDim.y) {
        i32 sum = 0;
        for (u32 s = 0; s < a.segments; s++) {
            const i64 acc = linear_plain::segment_sum(a, row, out, s * length, (s + 1) * length);
            const u32 x_scale = a.x_scales[static_cast<u64>(row) * a.segments + s];
            sum += clamp_segment(requant(acc, a.planes, x_scale, a.w_scales[out], static_cast<i32>(a.f_out)), limit);
        }
        if (threadIdx.x % WARP == 0) a.out[static_cast<u64>(row) * a.n + out] = add_bias(a, sum, out);
    }
}
