// The scalars of ../spec.h by name, for tests that compare them with the reference.
#pragma once

extern "C" {

i64 bitai_spec_rsr(i64 x, i32 s) { return rsr(x, s); }
i32 bitai_spec_rsr32(i64 x, i32 s) { return rsr32(x, s); }
i32 bitai_spec_sat32(i64 x) { return sat32(x); }
i64 bitai_spec_smul(i64 a, i64 b) { return smul(a, b); }
i32 bitai_spec_bitlen(u64 x) { return bitlen(x); }
u64 bitai_spec_isqrt(u64 x) { return isqrt(x); }

// Q1 to Q5: shift, reciprocal, scale word.
void bitai_spec_group_params(u32 absmax, u32 planes, i32 f_in, i32 s0, i32* shift, i64* recip, u32* scale) {
    GroupParams p = group_params(absmax, planes, f_in, s0);
    *shift = p.shift, *recip = p.recip, *scale = p.scale;
}
// Q1 to Q6 for a value of a group with that largest magnitude (|v| <= absmax).
i32 bitai_spec_quant_element(i32 v, u32 absmax, u32 planes) {
    return quant_element(v, group_params(absmax, planes, 0, 0), q_max(planes));
}
i32 bitai_spec_plane_hi(i32 x) { return plane_hi(x); }
i32 bitai_spec_plane_lo(i32 x) { return plane_lo(x); }
i32 bitai_spec_wht_shift(u32 absmax) { return wht_shift(absmax); }
i32 bitai_spec_wht_input(i32 v, i32 s0) { return wht_input(v, s0); }

i32 bitai_spec_requant(i64 acc, u32 planes, u32 x, u32 w, i32 f_out) { return requant(acc, planes, x, w, f_out); }
// For |acc| < 2^31.
i32 bitai_spec_requant8(i32 acc, u32 x, u32 w, i32 f_out) { return requant8(acc, x, w, f_out); }
i32 bitai_spec_segment_limit(u32 segments) { return segment_limit(segments); }
i32 bitai_spec_embed_element(i32 w, u32 mult, u32 scale, i32 f_out) { return embed_element(w, mult, scale, f_out); }

i32 bitai_spec_norm_shift(u64 absmax) { return norm_shift(absmax); }
// R3 to R5: multiplier and exponent; eps is for all d elements together, 128 bits.
void bitai_spec_group_norm(u64 squares, u32 d, u64 eps_lo, u64 eps_hi, i32 shift, i64* iv, i32* e) {
    NormParts p = norm_parts(squares, norm_eps(eps_lo, eps_hi, shift));
    GroupNorm g = group_norm(isqrt(p.n), isqrt(static_cast<u64>(d) << 46), p.up);
    *iv = g.iv, *e = g.e;
}
// R6 and R9 for an element under its group's own shift (|x| <= 2^23).
i32 bitai_spec_norm_element(i32 x, i64 iv, i32 e, i32 gain, i32 gain_f, i32 f_out) {
    return norm_element(x, iv, norm_last(gain_f, f_out, e), gain);
}
i32 bitai_spec_layer_element(i32 x, i64 iv, i32 e, i32 gain, i32 bias, i32 gain_f, i32 f_out) {
    return layer_element(x, iv, norm_last(gain_f, f_out, e), gain, bias);
}

void bitai_spec_rotate(i32 a, i32 b, i32 cos, i32 sin, i32* out) {
    int2 r = rotate(a, b, cos, sin);
    out[0] = r.x, out[1] = r.y;
}

u32 bitai_spec_pow2(u32 g) { return pow2(g); }
// f in 1..=31, z < 2^32 - 2^f.
u32 bitai_spec_exp2n(u32 z, u32 f) { return exp2n(z, f); }

i32 bitai_spec_unit_share(u32 act, i32 x, i32 f, const i32* sigmoid, const i32* phi) {
    return unit_share(act, unit_argument(x, f), sigmoid, phi);
}
i32 bitai_spec_unit_gated(u32 act, i32 f, i32 gate, i32 up, const i32* sigmoid, const i32* phi) {
    return unit_gated(gate, up, bitai_spec_unit_share(act, gate, f, sigmoid, phi), f);
}
i32 bitai_spec_unit_alone(u32 act, i32 f, i32 x, const i32* sigmoid, const i32* phi) {
    return unit_alone(x, bitai_spec_unit_share(act, x, f, sigmoid, phi));
}

// Units are exponents; the minimum of int32 is none.
i32 bitai_spec_key_factor(u32 scale, i32 unit) { return key_factor(scale, unit); }
u32 bitai_spec_value_factor(u32 scale, i32 unit, u32 p_bits) { return value_factor(scale, unit, p_bits); }
void bitai_spec_query_factor(u32 q, u32 site, i32 unit, u32 head_dim, i32* c, u32* f) {
    QueryFactor r = query_factor(q, site, unit, dot_shift(head_dim));
    *c = r.c, *f = r.f;
}
// |dot| * 2^dot_shift < 2^31.
i32 bitai_spec_aligned(i32 dot, i32 factor, u32 head_dim) { return aligned(dot, factor, dot_shift(head_dim)); }
i32 bitai_spec_score(i32 y, i32 c) { return score(y, c); }
// x <= peak.
u32 bitai_spec_share(i32 x, i32 peak, u32 f) { return share(x, peak, f); }
u32 bitai_spec_weight(u32 e, u32 factor, u32 key, u32 p_bits) { return weight(e, factor, key, p_bits); }
i32 bitai_spec_attention_element(i64 acc, u64 z, i32 v_unit, u32 p_bits, i32 f_out) {
    return attention_element(acc, reciprocal(z), v_unit, p_bits, f_out);
}
void bitai_spec_visible(u32 pos, u32 len, u32 causal, u32 window, u32* lo, u32* end) {
    *end = visible_end(pos, len, causal);
    *lo = visible_start(*end, window);
}
i32 bitai_spec_pool_mean(i64 sum, u32 rows) { return pool_mean(sum, rows); }

} // extern "C"
