//! The scalars of `kernels/cuda/spec.h` against the reference, over all that a kernel can meet; and the emulated GPU's
//! own tests.
#![allow(unsafe_code)]

use proptest::prelude::*;

use crate::{
    num::{SAT32, Scale, bitlen, isqrt, rsr, sat32},
    program::Activation,
    reference::{
        attention, embed, exp2, glu, layer_norm, linear, norm, pool, quant, rope,
        tables::{PHI, SIGMOID},
    },
};

// SAFETY: plain functions of numbers (kernels/cuda/emu/spec_abi.h); those that take pointers are not marked safe.
unsafe extern "C" {
    safe fn bitai_emu_selftest() -> i32;
    safe fn bitai_spec_rsr(x: i64, s: i32) -> i64;
    safe fn bitai_spec_rsr32(x: i64, s: i32) -> i32;
    safe fn bitai_spec_sat32(x: i64) -> i32;
    safe fn bitai_spec_smul(a: i64, b: i64) -> i64;
    safe fn bitai_spec_bitlen(x: u64) -> i32;
    safe fn bitai_spec_isqrt(x: u64) -> u64;
    fn bitai_spec_group_params(
        max: u32,
        planes: u32,
        f_in: i32,
        s0: i32,
        shift: &mut i32,
        recip: &mut i64,
        scale: &mut u32,
    );
    safe fn bitai_spec_quant_element(v: i32, max: u32, planes: u32) -> i32;
    safe fn bitai_spec_plane_hi(x: i32) -> i32;
    safe fn bitai_spec_plane_lo(x: i32) -> i32;
    safe fn bitai_spec_wht_shift(max: u32) -> i32;
    safe fn bitai_spec_wht_input(v: i32, s0: i32) -> i32;
    safe fn bitai_spec_requant(acc: i64, planes: u32, x: u32, w: u32, f_out: i32) -> i32;
    safe fn bitai_spec_requant8(acc: i32, x: u32, w: u32, f_out: i32) -> i32;
    safe fn bitai_spec_segment_limit(segments: u32) -> i32;
    safe fn bitai_spec_embed_element(w: i32, mult: u32, scale: u32, f_out: i32) -> i32;
    safe fn bitai_spec_norm_shift(max: u64) -> i32;
    fn bitai_spec_group_norm(
        squares: u64,
        d: u32,
        eps_lo: u64,
        eps_hi: u64,
        shift: i32,
        iv: &mut i64,
        e: &mut i32,
    );
    safe fn bitai_spec_norm_element(x: i32, iv: i64, e: i32, gain: i32, gain_f: i32, f_out: i32) -> i32;
    safe fn bitai_spec_layer_element(
        x: i32,
        iv: i64,
        e: i32,
        gain: i32,
        bias: i32,
        gain_f: i32,
        f_out: i32,
    ) -> i32;
    fn bitai_spec_rotate(a: i32, b: i32, cos: i32, sin: i32, out: &mut [i32; 2]);
    safe fn bitai_spec_pow2(g: u32) -> u32;
    safe fn bitai_spec_exp2n(z: u32, f: u32) -> u32;
    fn bitai_spec_unit_gated(
        act: u32,
        f: i32,
        gate: i32,
        up: i32,
        sigmoid: &[i32; 513],
        phi: &[i32; 513],
    ) -> i32;
    fn bitai_spec_unit_alone(act: u32, f: i32, x: i32, sigmoid: &[i32; 513], phi: &[i32; 513]) -> i32;
    safe fn bitai_spec_key_factor(scale: u32, unit: i32) -> i32;
    safe fn bitai_spec_value_factor(scale: u32, unit: i32, p_bits: u32) -> u32;
    fn bitai_spec_query_factor(q: u32, site: u32, unit: i32, head_dim: u32, c: &mut i32, f: &mut u32);
    safe fn bitai_spec_aligned(dot: i32, factor: i32, head_dim: u32) -> i32;
    safe fn bitai_spec_score(y: i32, c: i32) -> i32;
    safe fn bitai_spec_share(x: i32, peak: i32, f: u32) -> u32;
    safe fn bitai_spec_weight(e: u32, factor: u32, key: u32, p_bits: u32) -> u32;
    safe fn bitai_spec_attention_element(acc: i64, z: u64, v_unit: i32, p_bits: u32, f_out: i32) -> i32;
    fn bitai_spec_visible(pos: u32, len: u32, causal: u32, window: u32, lo: &mut u32, end: &mut u32);
    safe fn bitai_spec_pool_mean(sum: i64, rows: u32) -> i32;
}

const ACTS: [Activation; 3] = [Activation::Silu, Activation::GeluTanh, Activation::GeluErf];

fn word(s: Scale) -> u32 {
    u32::from_le_bytes(s.to_bytes())
}

/// None is the least int32.
fn unit_word(unit: Option<i16>) -> i32 {
    unit.map_or(i32::MIN, i32::from)
}

fn scale() -> impl Strategy<Value = Scale> {
    prop_oneof![
        (any::<u16>(), any::<i16>()),
        (32_768u16.., -40i16..10),
        (Just(0u16), any::<i16>()),
    ]
    .prop_map(|(m, e)| Scale { m, e })
}

/// Of every size, both signs.
fn wide() -> impl Strategy<Value = i64> {
    (any::<i64>(), 0u32..64).prop_map(|(x, s)| x >> s)
}

fn narrow() -> impl Strategy<Value = i32> {
    (any::<i32>(), 0u32..32).prop_map(|(x, s)| x >> s)
}

fn p_bits() -> impl Strategy<Value = u8> {
    prop_oneof![Just(15u8), Just(23u8)]
}

#[test]
fn the_emulated_gpu_shows_mistakes() {
    assert_eq!(bitai_emu_selftest(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn numbers(x in wide(), y in wide(), s in -140i32..140) {
        prop_assert_eq!(bitai_spec_rsr(x, s), rsr(x, s));
        prop_assert_eq!(bitai_spec_rsr32(x, s), sat32(rsr(x, s)));
        prop_assert_eq!(bitai_spec_sat32(x), sat32(x));
        prop_assert_eq!(bitai_spec_smul(x, y), x.saturating_mul(y));
        prop_assert_eq!(bitai_spec_bitlen(x as u64), bitlen(x as u64));
    }

    #[test]
    fn roots(x: u64, s in 0u32..64, root: u32) {
        let square = u64::from(root) * u64::from(root);
        for x in [x >> s, square, square.wrapping_sub(1), square.saturating_add(2 * u64::from(root))] {
            prop_assert_eq!(bitai_spec_isqrt(x), isqrt(x));
        }
    }

    #[test]
    fn quantisation(v in narrow(), other in narrow(), planes in 1u8..=2, f_in in 0u8..=30, s0 in 0i32..=10) {
        let max = v.unsigned_abs().max(other.unsigned_abs());
        let want = quant::group_params(max, planes, f_in, s0);
        let (mut shift, mut recip, mut scale) = (0, 0, 0);
        // SAFETY: writes one number behind each reference.
        unsafe {
            bitai_spec_group_params(max, planes.into(), f_in.into(), s0, &mut shift, &mut recip, &mut scale);
        }
        prop_assert_eq!((shift, recip, scale), (want.shift, want.recip, word(want.scale)));
        let q = quant::element(v, planes, &want);
        prop_assert_eq!(bitai_spec_quant_element(v, max, planes.into()), i32::from(q));
        let (hi, lo) = quant::planes_of(q);
        prop_assert_eq!((bitai_spec_plane_hi(q.into()), bitai_spec_plane_lo(q.into())), (hi.into(), lo.into()));
        let s = quant::wht_shift(max);
        prop_assert_eq!(bitai_spec_wht_shift(max), s);
        prop_assert_eq!(bitai_spec_wht_input(v, s), quant::wht_input(v, s));
    }

    #[test]
    fn requantisation(acc in wide(), small in narrow(), x in scale(), w in scale(), f_out in 0u8..=30) {
        prop_assert_eq!(bitai_spec_requant(acc, 1, word(x), word(w), f_out.into()), linear::requant(acc, 1, x, w, f_out));
        let acc = acc >> 16; // sums of two planes stay below 2^46
        prop_assert_eq!(bitai_spec_requant(acc, 2, word(x), word(w), f_out.into()), linear::requant(acc, 2, x, w, f_out));
        let small = small.max(-i32::MAX);
        prop_assert_eq!(bitai_spec_requant8(small, word(x), word(w), f_out.into()),
            linear::requant(small.into(), 1, x, w, f_out));
    }

    #[test]
    fn embedding(w: i8, mult: u8, s in scale(), f_out in 0u8..=30) {
        prop_assert_eq!(bitai_spec_embed_element(w.into(), mult.into(), word(s), f_out.into()),
            embed::element(w, mult, s, f_out));
    }

    #[test]
    fn norms(squares in 0u64..=1 << 61, cut in 0u32..62, d in 1u32..=32_768, eps: u64, eps_cut in 0u32..64,
             shift in 0i32..=9, wide_shift in 0i32..=25) {
        let (squares, eps) = (squares >> cut, eps >> eps_cut);
        let (mut iv, mut e) = (0, 0);
        let all = u128::from(d) * u128::from(eps);
        let want = norm::group_norm(squares, d as usize, eps, shift);
        // SAFETY: writes one number behind each reference.
        unsafe { bitai_spec_group_norm(squares, d, all as u64, (all >> 64) as u64, shift, &mut iv, &mut e) };
        prop_assert_eq!((iv, e), (want.iv, want.e));
        let all = u128::from(d).pow(3) * u128::from(eps);
        let want = layer_norm::group_norm(squares, d as usize, eps, wide_shift);
        // SAFETY: as above.
        unsafe { bitai_spec_group_norm(squares, d, all as u64, (all >> 64) as u64, wide_shift, &mut iv, &mut e) };
        prop_assert_eq!((iv, e), (want.iv, want.e));
    }

    #[test]
    fn norm_elements(x in -(1i32 << 23)..=1 << 23, iv in 1i64 << 30..=1 << 31, e in -62i32..=-23, gain in narrow(),
                     bias in narrow(), gain_f: i8, f_out in 0u8..=30, max in wide()) {
        let p = norm::GroupNorm { shift: 0, iv, e };
        prop_assert_eq!(bitai_spec_norm_element(x, iv, e, gain, gain_f.into(), f_out.into()),
            norm::element(x, gain, &p, gain_f, f_out));
        prop_assert_eq!(bitai_spec_layer_element(x, iv, e, gain, bias, gain_f.into(), f_out.into()),
            layer_norm::element(x.into(), gain, bias, &p, gain_f, f_out));
        let max = max.unsigned_abs();
        prop_assert_eq!(bitai_spec_norm_shift(max), layer_norm::shift(max));
    }

    #[test]
    fn rotation(a in narrow(), b in narrow(), cos: i16, sin: i16) {
        let mut out = [0; 2];
        // SAFETY: writes the two numbers of the array.
        unsafe { bitai_spec_rotate(a, b, cos.into(), sin.into(), &mut out) };
        prop_assert_eq!((out[0], out[1]), rope::rotate(a, b, cos, sin));
    }

    #[test]
    fn exponentials(g: u32, z in 0u32..=1 << 30, cut in 0u32..30, f in 1u32..=31) {
        prop_assert_eq!(bitai_spec_pow2(g), exp2::pow2(g));
        let z = z >> cut;
        prop_assert_eq!(bitai_spec_exp2n(z, f), exp2::exp2_neg(z.into(), f));
    }

    #[test]
    fn units(gate in narrow(), up in narrow(), f in 0u8..=30) {
        for (i, act) in (0..).zip(ACTS) {
            // SAFETY: reads the two tables.
            let (gated, alone) = unsafe {
                (bitai_spec_unit_gated(i, f.into(), gate, up, &SIGMOID, &PHI),
                 bitai_spec_unit_alone(i, f.into(), gate, &SIGMOID, &PHI))
            };
            prop_assert_eq!(gated, glu::element(act, f, gate, up));
            prop_assert_eq!(alone, glu::act(act, f, gate));
        }
    }

    #[test]
    fn attention_factors(q in scale(), site in scale(), s in scale(), unit: Option<i16>, p_bits in p_bits(), dim in 1u32..=1024) {
        prop_assert_eq!(bitai_spec_key_factor(word(s), unit_word(unit)), attention::key_factor(s, unit));
        prop_assert_eq!(bitai_spec_value_factor(word(s), unit_word(unit), p_bits.into()), attention::value_factor(s, unit, p_bits));
        let want = attention::query_factor(q, site, unit, dim as usize);
        let (mut c, mut f) = (0, 0);
        // SAFETY: writes one number behind each reference.
        unsafe { bitai_spec_query_factor(word(q), word(site), unit_word(unit), dim, &mut c, &mut f) };
        prop_assert_eq!((c, f), (want.c, want.f));
    }

    #[test]
    fn attention_scores(dot in any::<i32>(), factor in 0i32.., c in 0i32.., f in 1u32..=31, dim in 1u32..=1024,
                        other in -(1i32 << 29)..=1 << 29, v_factor: u32, key: u32, p_bits in p_bits()) {
        // What a head of that length can give: 127 * 128 each.
        let dot = dot % (127 * 128 * dim as i32 + 1);
        let y = attention::aligned(dot.into(), factor, dim as usize);
        prop_assert_eq!(bitai_spec_aligned(dot, factor, dim), y);
        let q = attention::QueryFactor { c, f };
        let x = attention::score(y, q);
        prop_assert_eq!(bitai_spec_score(y, c), x);
        let (x, peak) = (x.min(other), x.max(other));
        let e = attention::exp(x, peak, q);
        prop_assert_eq!(bitai_spec_share(x, peak, f), e);
        prop_assert_eq!(bitai_spec_weight(e, v_factor, key, p_bits.into()), attention::weight(e, v_factor, key, p_bits));
    }

    #[test]
    fn attention_outputs(acc in wide(), z: u64, cut in 0u32..64, unit: Option<i16>, p_bits in p_bits(), f_out in 0u8..=30,
                         pos in 0u32..300, len in 1u32..300, causal: bool, window in 0u32..40) {
        let z = z >> cut;
        prop_assert_eq!(bitai_spec_attention_element(acc, z, unit_word(unit), p_bits.into(), f_out.into()),
            attention::finish(acc, z, unit, p_bits, f_out));
        let (mut lo, mut end) = (0, 0);
        // SAFETY: writes one number behind each reference.
        unsafe { bitai_spec_visible(pos, len, causal.into(), window, &mut lo, &mut end) };
        prop_assert_eq!((lo, end), attention::visible(pos, len, causal, window));
    }

    #[test]
    fn pooling(sum in -(1i64 << 48)..1 << 48, rows in 1u32..=1 << 17) {
        prop_assert_eq!(bitai_spec_pool_mean(sum, rows), pool::mean(sum, rows as usize));
    }
}

#[test]
fn segments_have_their_share_of_the_range() {
    for segments in [1u32, 2, 4, 8] {
        assert_eq!(
            i64::from(bitai_spec_segment_limit(segments)),
            SAT32 >> segments.ilog2()
        );
    }
}
