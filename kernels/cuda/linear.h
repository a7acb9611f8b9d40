// What the linear kernels share: the end of an output element (rules L2 to L4) for sums within the loader's bound.
#pragma once
#include "args.h"
#include "gpu.h"
#include "spec.h"

// Elements of k that share a multiplier.
static constexpr u32 GROUP = 32;

// N2 in 32-bit steps.
DEVICE i32 narrow(i64 x) {
    const i32 low = static_cast<i32>(x), high = static_cast<i32>(x >> 32);
    // Beyond 32 bits: the largest number, or by the sign its complement, which is one too small.
    return max(high == low >> 31 ? low : (high >> 31) ^ SAT32, -SAT32);
}

// N2 of N1 in few instructions where 0 < s < 63, as for every honest scale.
DEVICE i32 rounded32(i64 x, i32 s) {
    const u32 less = static_cast<u32>(s) - 1;
    if (less < 62) return narrow(((x >> less) + 1) >> 1);
    if (s > 0) return 0;
    // A left shift of 32 or more saturates whatever is not zero.
    return narrow(static_cast<i64>(static_cast<u64>(static_cast<i64>(narrow(x))) << min(-s, 32)));
}

// L2 of an int32 sum (T3): the product is below 2^63.
DEVICE i32 requant_a8(i32 acc, u32 x, u32 w, u32 f_out) {
    const i64 scaled = static_cast<i64>(acc) * static_cast<i64>(static_cast<u64>(scale_m(x) * scale_m(w)));
    return rounded32(scaled, -(scale_e(x) + scale_e(w) + static_cast<i32>(f_out)));
}

// L3 of the int32 sums of both planes (T3, so below 2^39): every product is below 2^55.
DEVICE i32 requant_a16(i32 hi, i32 lo, u32 x, u32 w, u32 f_out) {
    const i64 acc = static_cast<i64>(hi) * 256 + lo;
    const i64 scaled = (acc * scale_m(x) + 0x8000) >> 16;
    return rounded32(scaled * scale_m(w), -(scale_e(x) + scale_e(w) + static_cast<i32>(f_out)) - 16);
}

// L4's last step: the segments' sum (or the only segment) and the output's bias.
DEVICE i32 add_bias(const LinearArgs& a, i32 sum, u32 out) {
    // Clamped segments add up to at most 2^31 - 1, one segment is within it.
    return a.bias ? sat32(static_cast<i64>(sum) + a.bias[out]) : sum;
}
