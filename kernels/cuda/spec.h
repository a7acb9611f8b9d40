// The scalar arithmetic of docs/spec/tensor.md, rule by rule, for host and device. It reads like kernels/src/reference; loops over
// tensors are the kernels'. Where a rule saturates for openings in disputes alone, the plain form stands here with the bound that
// makes it exact for every value a kernel can meet.
#pragma once
#include "gpu.h"

static constexpr i64 I64_MAX = 0x7fffffffffffffffll;
static constexpr i64 I64_MIN = -I64_MAX - 1;
static constexpr i32 SAT32 = 0x7fffffff;
// An exponent that stands for "no unit" (A3).
static constexpr i32 NO_UNIT = -SAT32 - 1;

// ---- N: numbers

// N3.
DEVICE i32 bitlen(u64 x) { return 64 - __clzll(static_cast<i64>(x)); }
DEVICE i32 bitlen32(u32 x) { return 32 - __clz(static_cast<i32>(x)); }

// x * 2^n clamped to int64, n >= 0.
DEVICE i64 shl_sat(i64 x, i32 n) {
    if (x == 0) return 0;
    if (n < 64) {
        i64 y = static_cast<i64>(static_cast<u64>(x) << n);
        if ((y >> n) == x) return y;
    }
    return x > 0 ? I64_MAX : I64_MIN;
}

// N1. s is never near the ends of int32: exponents are 16 bits wide.
DEVICE i64 rsr(i64 x, i32 s) {
    if (s >= 63) return 0;
    if (s > 0) return (x >> s) + ((x >> (s - 1)) & 1);
    return shl_sat(x, -s);
}

// N2.
DEVICE i32 sat32(i64 x) { return static_cast<i32>(max(min(x, static_cast<i64>(SAT32)), -static_cast<i64>(SAT32))); }

// sat32(rsr(x, s)) in fewer steps: to the left, what is beyond 32 bits before the shift is beyond them after it.
DEVICE i32 rsr32(i64 x, i32 s) {
    if (s >= 63) return 0;
    if (s > 0) return sat32((x >> s) + ((x >> (s - 1)) & 1));
    x = max(min(x, 1ll << 31), -(1ll << 31));
    return sat32(static_cast<i64>(static_cast<u64>(x) << min(-s, 31)));
}

// N4, without division or floating point: Newton's steps towards 1 / sqrt in 32 bits, a step on the remainder, then what is
// left of the error (a unit or two) counted off exactly.
DEVICE u64 isqrt(u64 x) {
    if (x == 0) return 0;
    i32 up = __clzll(static_cast<i64>(x)) & ~1;
    u64 n = x << up;
    u32 v = static_cast<u32>(n >> 32);
    // r is 2^30 / sqrt(v / 2^32), first to within an eighth by a line.
    u32 r = 2415919104u - __umulhi(v, 1395864371u);
    UNROLL
    for (int i = 0; i < 4; i++) {
        u32 off = (3u << 28) - __umulhi(__umulhi(r, r), v);
        r = __umulhi(r, off << 2) << 1;
    }
    i64 s = static_cast<i64>((static_cast<u64>(r) * v) >> 30);
    s = min(s, 0xffffffffll);
    i64 rest = static_cast<i64>(n - static_cast<u64>(s) * static_cast<u64>(s));
    s += ((rest >> 16) * static_cast<i64>(r)) >> 47;
    s = min(max(s, 0ll), 0xffffffffll);
    u64 root = static_cast<u64>(s);
    while (root * root > n) root--;
    while (root < 0xffffffffull && (root + 1) * (root + 1) <= n) root++;
    return root >> (up / 2);
}

// N5: |v|; int32's minimum gives 2^31.
DEVICE u32 magnitude(i32 v) { return v < 0 ? 0u - static_cast<u32>(v) : static_cast<u32>(v); }

// N6: a scale as the word that stores it.
DEVICE u32 scale_m(u32 scale) { return scale & 0xffffu; }
DEVICE i32 scale_e(u32 scale) { return static_cast<i16>(scale >> 16); }
DEVICE u32 scale_word(u32 m, i32 e) { return (m & 0xffffu) | (static_cast<u32>(e) << 16); }

// N7.
DEVICE i64 smul(i64 a, i64 b) {
    i64 low = static_cast<i64>(static_cast<u64>(a) * static_cast<u64>(b)), high = __mul64hi(a, b);
    if (high == (low >> 63)) return low;
    return (a < 0) == (b < 0) ? I64_MAX : I64_MIN;
}

// ---- Q: quantisation of a group, W: its transform

struct GroupParams {
    i32 shift;  // Q2
    i64 recip;  // Q3
    u32 scale;  // Q4, Q5
};

DEVICE i32 q_max(u32 planes) { return planes == 1 ? 127 : 32639; }

// W1.
DEVICE i32 wht_shift(u32 absmax) { return max(bitlen32(absmax) - 22, 0); }

// W2. The shift is the group's own, so the rounded value is at most 2^22.
DEVICE i32 wht_input(i32 v, i32 s0) {
    i32 u = s0 > 0 ? (v >> s0) + ((v >> (s0 - 1)) & 1) : v;
    return max(min(u, (1 << 22) - 1), -((1 << 22) - 1));
}

// Q1 to Q5.
DEVICE GroupParams group_params(u32 absmax, u32 planes, i32 f_in, i32 s0) {
    if (absmax == 0) return {0, 0, 0};
    u64 q = static_cast<u64>(q_max(planes));
    i32 s = bitlen32(absmax) - 24;
    u64 a = static_cast<u64>(rsr(static_cast<i64>(absmax), s));
    u64 m = planes == 1 ? (a << 20) / 127 : (a << 20) / 32639; // divisors that the compiler knows
    i32 k = bitlen(m) - 16;
    u32 mantissa = static_cast<u32>(rsr(static_cast<i64>(m), k));
    if (mantissa == 0x10000) {
        mantissa = 0x8000;
        k += 1;
    }
    return {s, static_cast<i64>((q << 40) / a), scale_word(mantissa, k - 20 + s + s0 - f_in)};
}

// Q6 for a value of the group: |rsr(v, s)| <= 2^24 and recip <= 2^32, so nothing saturates before the clamp.
DEVICE i32 quant_element(i32 v, const GroupParams& p, i32 q) {
    i32 x = p.shift > 0 ? (v >> p.shift) + ((v >> (p.shift - 1)) & 1) : static_cast<i32>(static_cast<u32>(v) << -p.shift);
    i64 y = (static_cast<i64>(x) * p.recip + (1ll << 39)) >> 40;
    return max(min(static_cast<i32>(y), q), -q);
}

// Q7.
DEVICE i32 plane_lo(i32 x) { return static_cast<i8>(x); }
DEVICE i32 plane_hi(i32 x) { return (x - static_cast<i8>(x)) >> 8; }

// ---- L: linear

// L2 (one plane) and L3 (two): the sum of one segment in the output's format.
DEVICE i32 requant(i64 acc, u32 planes, u32 x_scale, u32 w_scale, i32 f_out) {
    i32 shift = -(scale_e(x_scale) + scale_e(w_scale) + f_out);
    i64 mx = scale_m(x_scale), mw = scale_m(w_scale);
    if (planes == 1) return rsr32(smul(acc, mx * mw), shift);
    // |acc| <= 2^46: exact for any bytes.
    return rsr32(rsr(acc * mx, 16) * mw, shift - 16);
}

// L2 for |acc| < 2^31, which the loader proves (T3): the product fits without a check.
DEVICE i32 requant8(i32 acc, u32 x_scale, u32 w_scale, i32 f_out) {
    i64 m = static_cast<i64>(scale_m(x_scale)) * scale_m(w_scale);
    return rsr32(acc * m, -(scale_e(x_scale) + scale_e(w_scale) + f_out));
}

// L4: the most that one of `segments` (1, 2, 4 or 8) sums may count.
DEVICE i32 segment_limit(u32 segments) { return SAT32 >> (bitlen32(segments) - 1); }
DEVICE i32 clamp_segment(i32 y, i32 limit) { return max(min(y, limit), -limit); }

// ---- E: embedding

// E1; mult is 1 where the table is not grouped.
DEVICE i32 embed_element(i32 w, u32 mult, u32 scale, i32 f_out) {
    i64 x = static_cast<i64>(w) * static_cast<i32>(mult) * static_cast<i64>(scale_m(scale));
    return rsr32(x, -(scale_e(scale) + f_out));
}

// ---- R: norms

// R1 and R7: from the largest magnitude.
DEVICE i32 norm_shift(u64 absmax) { return max(bitlen(absmax) - 23, 0); }

// R1: an element under the group's own shift, at most 2^23.
DEVICE i32 norm_input(i32 h, i32 shift) { return shift > 0 ? (h >> shift) + ((h >> (shift - 1)) & 1) : h; }

// R7: D times the distance from the mean, |z| <= 2^47; under the group's own shift at most 2^23.
DEVICE i64 centred(i32 h, u32 d, i64 sum) { return static_cast<i64>(d) * h - sum; }
DEVICE i32 centred_input(i64 z, i32 shift) { return static_cast<i32>(rsr(z, shift)); }

// R3, first half: min(floor(eps / 2^(2s)), 2^62) of a 128-bit eps for all elements together, s in 0..=25.
DEVICE u64 norm_eps(u64 lo, u64 hi, i32 shift) {
    i32 s = 2 * shift;
    u64 most = 1ull << 62;
    if ((hi >> s) != 0) return most;
    u64 low = s == 0 ? lo : (lo >> s) | (hi << (64 - s));
    return min(low, most);
}

struct NormParts {
    u64 n;   // R4, in [2^60, 2^62)
    i32 up;  // R4's u
};

// R3 and R4 from the sum of squares (at most 2^61) and norm_eps.
DEVICE NormParts norm_parts(u64 squares, u64 eps) {
    u64 ss = squares + eps;
    if (ss < eps) ss = ~0ull;
    if (ss == 0) ss = 1;
    i32 up = 62 - bitlen(ss);
    up -= up & 1;
    return {up >= 0 ? ss << up : ss >> -up, up};
}

struct GroupNorm {
    i64 iv;  // 31-bit multiplier
    i32 e;   // its exponent
};

// R5 from isqrt(n), isqrt(D * 2^46) and u.
DEVICE GroupNorm group_norm(u64 root_n, u64 root_d, i32 up) {
    u64 p = (1ull << 61) / root_n * root_d;
    i32 k = bitlen(p) - 31;
    return {rsr(static_cast<i64>(p), k), k - 84 + up / 2};
}

// R6 and R9, the last shift.
DEVICE i32 norm_last(i32 gain_f, i32 f_out, i32 e) { return gain_f - f_out - e - 23; }

// R6 for |x| <= 2^23, so y <= 2^31 and y * gain <= 2^62.
DEVICE i32 norm_element(i32 x, i64 iv, i32 last, i32 gain) { return rsr32(rsr(x * iv, 23) * gain, last); }

// R9 for the same bounds.
DEVICE i32 layer_element(i32 x, i64 iv, i32 last, i32 gain, i32 bias) {
    i64 scaled = rsr(rsr(x * iv, 23) * gain, last);
    // Far beyond 32 bits the bias changes nothing, and the sum must not wrap.
    scaled = max(min(scaled, 1ll << 62), -(1ll << 62));
    return sat32(scaled + bias);
}

// ---- P: rotary embedding

// P2: both elements of a pair.
DEVICE int2 rotate(i32 a, i32 b, i32 cos, i32 sin) {
    i64 x = a, y = b;
    return make_int2(sat32(rsr(x * cos - y * sin, 15)), sat32(rsr(y * cos + x * sin, 15)));
}

// ---- X: exponential

// X1's polynomial: 2^g in Q31, g a fraction in Q32.
DEVICE u32 pow2(u32 g) {
    u32 p = 111735252u + __umulhi(29109857u, g);
    p = 518343275u + __umulhi(p, g);
    p = 1488229728u + __umulhi(p, g);
    return 2147418112u + __umulhi(p, g);
}

// X1 for f in 1..=31 and z < 2^32 - 2^f.
DEVICE u32 exp2n(u32 z, u32 f) {
    u32 up = z + ((1u << f) - 1);
    u32 n = up >> f;
    return n > 31 ? 0 : pow2(~up << (32 - f)) >> n;
}

// ---- G: gated units

// G1: the argument in Q16.
DEVICE i64 unit_argument(i32 x, i32 f) { return rsr(x, f - 16); }

// G2. Neighbours in either table differ by less than 2^10, so the product with rest < 2^11 fits 32 bits.
DEVICE i32 unit_lookup(i64 x, const i32* table, i32 range_bits) {
    i32 t = range_bits + 7;
    u64 a = x < 0 ? 0ull - static_cast<u64>(x) : static_cast<u64>(x);
    i32 y = 65536;
    if ((a >> t) < 512) {
        u32 i = static_cast<u32>(a) >> t;
        i32 rest = static_cast<i32>(static_cast<u32>(a) & ((1u << t) - 1));
        i32 low = table[i], step = (table[i + 1] - low) * rest;
        y = low + (step >> t) + ((step >> (t - 1)) & 1);
    }
    return x < 0 ? 65536 - y : y;
}

// G3: the gate's share of its own argument, Q16. act: 0 silu, 1 gelu_tanh, 2 gelu_erf.
DEVICE i32 unit_share(u32 act, i64 x, const i32* sigmoid, const i32* phi) {
    if (act == 0) return unit_lookup(x, sigmoid, 4);
    if (act == 2) return unit_lookup(x, phi, 3);
    i64 w = max(min(x, 655360ll), -655360ll);
    i64 square = (w * w) >> 16;
    i64 cubic = 65536 + ((square * 2930) >> 16);
    i64 z = (w * cubic) >> 16;
    return unit_lookup((z * 104580) >> 16, sigmoid, 4);
}

// G4.
DEVICE i32 unit_gated(i32 gate, i32 up, i32 share, i32 f) {
    return rsr32(rsr(static_cast<i64>(gate) * share, 16) * up, f);
}

// G5.
DEVICE i32 unit_alone(i32 x, i32 share) { return sat32(rsr(static_cast<i64>(x) * share, 16)); }

// ---- A: attention

// A1: one past the last visible key, and the first.
DEVICE u32 visible_end(u32 pos, u32 len, u32 causal) { return causal && pos < len ? pos + 1 : len; }
DEVICE u32 visible_start(u32 end, u32 window) { return window != 0 && end > window ? end - window : 0; }

// A3: a scale's exponent as it counts for its unit.
DEVICE i32 unit_of(u32 scale) { return scale_m(scale) != 0 ? scale_e(scale) : NO_UNIT; }

// A3: mantissa * 2^shift cut to the unit.
DEVICE u32 in_unit(u32 scale, u32 shift, i32 unit) {
    i32 below = (unit == NO_UNIT ? 0 : unit) - scale_e(scale);
    return (scale_m(scale) << shift) >> max(min(below, 31), 0);
}
DEVICE i32 key_factor(u32 scale, i32 unit) { return static_cast<i32>(in_unit(scale, 15, unit)); }
DEVICE u32 value_factor(u32 scale, i32 unit, u32 p_bits) { return in_unit(scale, p_bits - 7, unit); }

// A4: how far a dot product is shifted up so that it fills 31 bits.
DEVICE u32 dot_shift(u32 head_dim) { return static_cast<u32>(17 - bitlen32(head_dim - 1)); }

struct QueryFactor {
    i32 c;
    u32 f;  // 1..=31
};

// A4: a query head's factor from its scale, the site's, the keys' unit and dot_shift.
DEVICE QueryFactor query_factor(u32 q_scale, u32 site, i32 unit, u32 shift) {
    u32 m = scale_m(q_scale) * scale_m(site);
    i32 b = bitlen32(m);
    i32 exponents = scale_e(q_scale) + scale_e(site) + (unit == NO_UNIT ? 0 : unit);
    i32 f = static_cast<i32>(shift) - 18 - b - exponents;
    u32 c = m == 0 ? 0 : (m << (32 - b)) >> 1;
    return {static_cast<i32>(c >> max(min(f - 31, 31), 0)), static_cast<u32>(max(min(f, 31), 1))};
}

// A4: a dot product (|dot| * 2^shift < 2^31: queries lie in +-127) times its key's factor.
DEVICE i32 aligned(i32 dot, i32 factor, u32 shift) {
    return __mulhi(static_cast<i32>(static_cast<u32>(dot) << shift), factor);
}

// A4: the score of an aligned dot product, rounded up.
DEVICE i32 score(i32 y, i32 c) { return -__mulhi(y, -c); }

// A5: a key's share of Z; peak is the largest score, so the difference is in 0..=2^30.
DEVICE u32 share(i32 x, i32 peak, u32 f) { return exp2n(static_cast<u32>(peak - x), f); }

// A6: a key's weight in p_bits bits. The share is below 2^31, so the first product is too.
DEVICE u32 weight(u32 e, u32 factor, u32 key, u32 p_bits) {
    return min((__umulhi(e, factor) + ((key * 159u) & 255u)) >> 8, (1u << p_bits) - 1);
}

struct Reciprocal {
    i64 rc;
    i32 b;
};

// A8.
DEVICE Reciprocal reciprocal(u64 z) {
    z = max(min(z, static_cast<u64>(I64_MAX)), 1ull);
    i32 b = bitlen(z);
    u64 zs = static_cast<u64>(rsr(static_cast<i64>(z), b - 31));
    return {rsr(static_cast<i64>((1ull << 62) / zs), 16), b};
}

// A9.
DEVICE i32 attention_element(i64 acc, const Reciprocal& r, i32 v_unit, u32 p_bits, i32 f_out) {
    if (v_unit == NO_UNIT) return 0;
    return rsr32(smul(acc, r.rc), static_cast<i32>(p_bits) + r.b - 32 - f_out - v_unit);
}

// ---- D and O

// D1.
DEVICE i32 add_element(i32 a, i32 b) { return sat32(static_cast<i64>(a) + b); }

// O1: the mean of `rows` rows from their sum.
DEVICE i32 pool_mean(i64 sum, u32 rows) { return sat32(rsr(sum, bitlen32(rows - 1))); }
