// norm_groups: RMS norm (R1 to R6) and layer norm (R7 to R9): a block a group.
//
// Bytes: 4 * D read and 4 * D written a group, D gains from the cache; some 80 instructions an element. The passes (maximum, squares, output)
// read the group again from the first-level cache rather than keep it in registers: that would take unrolled code of a hundred kilobytes, fetched
// once a launch. The group's multiplier takes two square roots and a division: warp 0 alone makes it, both roots at once in two lanes.
// Launch: grid (rows * cols / group), block a power of two of 32 to 1,024.
#include "args.h"
#include "gpu.h"
#include "reduce.h"
#include "row4.h"
#include "spec.h"

namespace norm_ {

// A group as its threads see it.
struct Group {
    const i32* x;
    u32 d;
    bool aligned;

    // Calls f(first element's number, four elements) for every piece of this thread; elements past the end are 0.
    template <class F>
    METHOD void each(F f) const {
        NO_UNROLL
        for (u32 i = 4 * threadIdx.x; i < d; i += 4 * blockDim.x) f(i, load4(x, i, d, aligned));
    }

    // The same with four loads under way, for the first pass.
    template <class F>
    METHOD void each_first(F f) const {
        u32 step = 4 * blockDim.x;
        NO_UNROLL
        for (u32 i = 4 * threadIdx.x; i < d; i += 4 * step) {
            int4 v[4];
            UNROLL
            for (u32 j = 0; j < 4; j++) v[j] = load4(x, i + j * step, d, aligned);
            UNROLL
            for (u32 j = 0; j < 4; j++) f(i + j * step, v[j]);
        }
    }
};

struct Found {
    i64 iv;
    i32 last;
};

// R3 to R5, by warp 0, for all.
DEVICE Found multiplier(const NormArgs& a, u64 squares, i32 shift) {
    SHARED(Found, found);
    if (threadIdx.x < WARP) {
        NormParts p = norm_parts(squares, norm_eps(a.eps_lo, a.eps_hi, shift));
        u64 root = isqrt(threadIdx.x == 1 ? static_cast<u64>(a.group) << 46 : p.n);
        u64 root_d = __shfl_sync(FULL, root, 1);
        GroupNorm g = group_norm(root, root_d, p.up);
        if (threadIdx.x == 0) found = {g.iv, norm_last(a.gain_f, static_cast<i32>(a.f_out), g.e)};
    }
    __syncthreads();
    return found;
}

struct RmsMaximum;
struct RmsSquares;

DEVICE void rms(const NormArgs& a, const Group& group, i32* out) {
    u32 most = 0;
    group.each_first([&](u32, int4 v) {
        most = max(most, max(max(magnitude(v.x), magnitude(v.y)), max(magnitude(v.z), magnitude(v.w))));
    });
    i32 shift = norm_shift(block_reduce<Maximum, RmsMaximum>(most, 0u));
    u64 squares = 0;
    auto square = [&](i32 h) {
        i32 x = norm_input(h, shift);
        squares += static_cast<u64>(static_cast<i64>(x) * x);
    };
    group.each([&](u32, int4 v) { square(v.x), square(v.y), square(v.z), square(v.w); });
    squares = block_reduce<Sum, RmsSquares>(squares, 0ull);
    Found n = multiplier(a, squares, shift);
    bool gain_aligned = fours(a.gain, a.group);
    group.each([&](u32 i, int4 v) {
        int4 g = load4(a.gain, i, a.group, gain_aligned);
        auto one = [&](i32 h, i32 gain) { return norm_element(norm_input(h, shift), n.iv, n.last, gain); };
        store4(out, i, a.group, group.aligned, make_int4(one(v.x, g.x), one(v.y, g.y), one(v.z, g.z), one(v.w, g.w)));
    });
}

struct LayerSum;
struct LayerMaximum;
struct LayerSquares;

DEVICE void layer(const NormArgs& a, const Group& group, i32* out) {
    u32 d = a.group;
    i64 sum = 0;
    group.each_first([&](u32, int4 v) { sum += static_cast<i64>(v.x) + v.y + v.z + v.w; });
    sum = block_reduce<Sum, LayerSum>(sum, 0ll);
    // Elements past the end of the group are zeros that must not be centred.
    u64 most = 0;
    auto widen = [&](u32 i, i32 h) {
        i64 z = centred(h, d, sum);
        if (i < d) most = max(most, static_cast<u64>(z < 0 ? -z : z));
    };
    group.each([&](u32 i, int4 v) { widen(i, v.x), widen(i + 1, v.y), widen(i + 2, v.z), widen(i + 3, v.w); });
    i32 shift = norm_shift(block_reduce<Maximum, LayerMaximum>(most, 0ull));
    u64 squares = 0;
    auto square = [&](u32 i, i32 h) {
        i64 x = centred_input(centred(h, d, sum), shift);
        if (i < d) squares += static_cast<u64>(x * x);
    };
    group.each([&](u32 i, int4 v) { square(i, v.x), square(i + 1, v.y), square(i + 2, v.z), square(i + 3, v.w); });
    squares = block_reduce<Sum, LayerSquares>(squares, 0ull);
    Found n = multiplier(a, squares, shift);
    bool gain_aligned = fours(a.gain, d), bias_aligned = fours(a.bias, d);
    group.each([&](u32 i, int4 v) {
        int4 g = load4(a.gain, i, d, gain_aligned), b = load4(a.bias, i, d, bias_aligned);
        auto one = [&](i32 h, i32 gain, i32 bias) {
            return layer_element(centred_input(centred(h, d, sum), shift), n.iv, n.last, gain, bias);
        };
        store4(out, i, d, group.aligned, make_int4(one(v.x, g.x, b.x), one(v.y, g.y, b.y), one(v.z, g.z, b.z), one(v.w, g.w, b.w)));
    });
}

} // namespace norm_

KERNEL(norm_groups, NormArgs) {
    u64 first = static_cast<u64>(blockIdx.x) * a.group;
    norm_::Group group;
    group.x = a.x + first;
    group.d = a.group;
    group.aligned = fours(a.x, a.group) && fours(a.out, a.group);
    if (a.bias) {
        norm_::layer(a, group, a.out + first);
    } else {
        norm_::rms(a, group, a.out + first);
    }
}
