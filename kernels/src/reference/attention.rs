//! Two-pass integer attention (rules A1 to A9). Both passes are a max and sums, so any split of the keys
//! gives the same integers.

use crate::{
    num::{Scale, bitlen, rsr, sat32},
    ops::{AttentionParams, KvSpan, QuantRows},
    reference::exp2::{exp2_neg, high},
    rows::{kv_record_len, kv_record_offset},
};

/// A1: positions `lo..n` that the query at `pos` sees in a sequence of `len` tokens.
pub fn visible(pos: u32, len: u32, causal: bool, window: u32) -> (u32, u32) {
    let n = if causal {
        pos.saturating_add(1).min(len)
    } else {
        len
    };
    let lo = if window == 0 { 0 } else { n.saturating_sub(window) };
    (lo, n)
}

/// A2: integer dot product of a query head and a key head; a piece of the head gives a partial sum.
pub fn dot(q: &[i16], k: &[i8]) -> i64 {
    q.iter().zip(k).map(|(q, k)| i64::from(*q) * i64::from(*k)).sum()
}

/// A3: the exponent of a scale as it counts for its unit; None for a mantissa of zero.
pub fn exponent(s: Scale) -> Option<i16> {
    (s.m != 0).then_some(s.e)
}

/// A3: `mantissa * 2^shift` cut to the unit: right by as much as the exponent lies below it, at most 31.
fn in_unit(s: Scale, shift: u32, unit: Option<i16>) -> u32 {
    // An exponent above the unit is there only where a claimed unit is too small.
    let below = (i32::from(unit.unwrap_or(0)) - i32::from(s.e)).clamp(0, 31);
    (u32::from(s.m) << shift) >> below
}

/// A3: a key's factor in the keys' unit, below 2^31.
pub fn key_factor(k: Scale, unit: Option<i16>) -> i32 {
    in_unit(k, 15, unit) as i32
}

/// A3: a value's factor in the values' unit, below 2^(p_bits + 9).
pub fn value_factor(v: Scale, unit: Option<i16>, p_bits: u8) -> u32 {
    in_unit(v, u32::from(p_bits) - 7, unit)
}

/// A4: how far a dot product is shifted up so that it fills 31 bits.
pub fn dot_shift(head_dim: usize) -> u32 {
    (17 - bitlen(head_dim as u64 - 1)) as u32
}

/// A4: what turns aligned dot products into scores: a factor, and the fraction bits that scores then have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryFactor {
    /// Factor, 0 or more.
    pub c: i32,
    /// Fraction bits, 1 to 31.
    pub f: u32,
}

/// A4: the factor of a query head, from its scale, the site's and the keys' unit.
pub fn query_factor(q: Scale, c: Scale, unit: Option<i16>, head_dim: usize) -> QueryFactor {
    let m = u64::from(q.m) * u64::from(c.m);
    let b = bitlen(m);
    let exponents = i32::from(q.e) + i32::from(c.e) + i32::from(unit.unwrap_or(0));
    let f = dot_shift(head_dim) as i32 - 18 - b - exponents;
    // 31 bits, less where the scores are so small that their fraction bits would pass 31.
    let c = ((m << (32 - b)) >> 1) >> (f - 31).clamp(0, 31);
    QueryFactor {
        c: c as i32,
        f: f.clamp(1, 31) as u32,
    }
}

/// A4: a dot product times its key's factor, at most 2^30.
pub fn aligned(dot: i64, key_factor: i32, head_dim: usize) -> i32 {
    let dot = sat32(dot.saturating_mul(1 << dot_shift(head_dim)));
    ((i64::from(dot) * i64::from(key_factor)) >> 32) as i32
}

/// A4: score of a key in log2 units from its aligned dot product, rounded up; below 2^29.
pub fn score(aligned: i32, q: QueryFactor) -> i32 {
    -((i64::from(aligned) * -i64::from(q.c)) >> 32) as i32
}

/// A2 to A4: score of a key for a query head, under the keys' unit.
pub fn key_score(
    q: &[i16],
    q_scale: Scale,
    c: Scale,
    k: &[i8],
    k_scale: Scale,
    unit: Option<i16>,
) -> (i32, QueryFactor) {
    let factor = query_factor(q_scale, c, unit, q.len());
    let y = aligned(dot(q, k), key_factor(k_scale, unit), q.len());
    (score(y, factor), factor)
}

/// A5: a key's share of Z.
pub fn exp(x: i32, max: i32, q: QueryFactor) -> u32 {
    // Never below zero where `max` is the largest; a claimed one may be anything.
    let z = (i64::from(max) - i64::from(x)).max(0);
    exp2_neg(z.unsigned_abs(), q.f)
}

/// A6: what is added below a weight's last bit before it is cut, by the key's position.
pub const fn dither(key: u32) -> u32 {
    key.wrapping_mul(159) & 255
}

/// A6: a key's probability times its V scale, in `p_bits` bits.
pub fn weight(e: u32, value_factor: u32, key: u32, p_bits: u8) -> u32 {
    let fine = u64::from(high(e, value_factor)) + u64::from(dither(key));
    ((fine >> 8) as u32).min((1 << p_bits) - 1)
}

/// A7: a piece of the sum over keys of weight times value, for one element of the head.
pub fn pv_partial(weights: &[u32], values: &[i8]) -> i64 {
    weights
        .iter()
        .zip(values)
        .map(|(p, v)| i64::from(*p) * i64::from(*v))
        .sum()
}

/// A8: the reciprocal of Z as (16-bit mantissa in [2^15, 2^16], bit length of Z).
pub fn reciprocal(z: u64) -> (i64, i32) {
    // Z holds the largest key's own share, 2^30 or more; the max covers a hostile Z of 0.
    let z = z.max(1).min(i64::MAX as u64);
    let b = bitlen(z);
    let zs = rsr(z as i64, b - 31);
    (rsr((1 << 62) / zs, 16), b)
}

/// A9: one element of the head's output; no `unit` where every V scale is zero, which gives 0.
pub fn finish(acc: i64, z: u64, unit: Option<i16>, p_bits: u8, f_out: u8) -> i32 {
    finish_by(acc, reciprocal(z), unit, p_bits, f_out)
}

/// The same by the reciprocal of Z, which all elements of a head share.
#[inline]
pub fn finish_by(acc: i64, (rc, b): (i64, i32), unit: Option<i16>, p_bits: u8, f_out: u8) -> i32 {
    let Some(unit) = unit else { return 0 };
    let shift = i32::from(p_bits) + b - 32 - i32::from(f_out) - i32::from(unit);
    sat32(rsr(acc.saturating_mul(rc), shift))
}

/// One key or value head in a canonical row: its integers and scale.
pub fn cached(row: &[u8], head: usize, head_dim: usize, value: bool) -> (&[i8], Scale) {
    let at = kv_record_offset(head, head_dim) + if value { kv_record_len(head_dim) / 2 } else { 0 };
    let ints = bytemuck::cast_slice(&row[at..at + head_dim]);
    let mut scale = [0; 4];
    scale.copy_from_slice(&row[at + head_dim..at + head_dim + 4]);
    (ints, Scale::from_bytes(scale))
}

/// What pass 1 finds for one query head, and pass 2 sums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadSums {
    /// First visible position.
    pub lo: u32,
    /// Unit of the keys, None where every K scale is zero.
    pub k_unit: Option<i16>,
    /// Unit of the values, None where every V scale is zero.
    pub v_unit: Option<i16>,
    /// The query's factor.
    pub factor: QueryFactor,
    /// Scores of the visible keys.
    pub scores: Vec<i32>,
    /// Largest score.
    pub max: i32,
    /// Shares of Z of the visible keys.
    pub exps: Vec<u32>,
    /// Weights of the visible keys.
    pub weights: Vec<u32>,
    /// Sum of the keys' shares.
    pub z: u64,
}

/// A1 to A6 for one query head over a cache of `len` canonical rows.
pub fn head_sums(
    p: AttentionParams,
    q: &[i16],
    q_scale: Scale,
    kv_head: usize,
    pos: u32,
    rows: &[u8],
    row_len: usize,
) -> HeadSums {
    let len = (rows.len() / row_len) as u32;
    let (lo, n) = visible(pos, len, p.causal, p.window);
    let record = |j: u32, value| cached(&rows[j as usize * row_len..], kv_head, p.head_dim, value);
    let k_unit = (lo..n).filter_map(|j| exponent(record(j, false).1)).max();
    let v_unit = (lo..n).filter_map(|j| exponent(record(j, true).1)).max();
    let factor = query_factor(q_scale, p.scale, k_unit, p.head_dim);
    let scores: Vec<i32> = (lo..n)
        .map(|j| {
            let (k, k_scale) = record(j, false);
            key_score(q, q_scale, p.scale, k, k_scale, k_unit).0
        })
        .collect();
    let max = scores.iter().copied().max().unwrap_or(0);
    let exps: Vec<u32> = scores.iter().map(|x| exp(*x, max, factor)).collect();
    let weights = (lo..n)
        .zip(&exps)
        .map(|(j, e)| weight(*e, value_factor(record(j, true).1, v_unit, p.p_bits), j, p.p_bits))
        .collect();
    HeadSums {
        lo,
        k_unit,
        v_unit,
        factor,
        max,
        weights,
        z: exps.iter().map(|e| u64::from(*e)).sum(),
        exps,
        scores,
    }
}

/// A1 to A9 for one query head.
pub fn attention_head(
    p: AttentionParams,
    q: &[i16],
    q_scale: Scale,
    kv_head: usize,
    pos: u32,
    rows: &[u8],
    row_len: usize,
    out: &mut [i32],
) {
    let sums = head_sums(p, q, q_scale, kv_head, pos, rows, row_len);
    let mut acc = vec![0i64; p.head_dim];
    for (j, w) in (sums.lo..).zip(&sums.weights) {
        let row = &rows[j as usize * row_len..];
        let (v, _) = cached(row, kv_head, p.head_dim, true);
        for (a, v) in acc.iter_mut().zip(v) {
            *a += pv_partial(&[*w], &[*v]);
        }
    }
    for (o, a) in out.iter_mut().zip(&acc) {
        *o = finish(*a, sums.z, sums.v_unit, p.p_bits, p.f_out);
    }
}

/// Every head of every query row.
pub fn attention_rows(p: AttentionParams, q: &QuantRows, spans: &[KvSpan<'_>], out: &mut [i32]) {
    let heads_a_kv = p.heads / p.kv_heads;
    let cols = p.heads * p.head_dim;
    let mut row = 0;
    for span in spans {
        for pos in (span.first..).take(span.count) {
            for h in 0..p.heads {
                let at = row * cols + h * p.head_dim;
                let q_scale = q.scales[row * p.heads + h];
                attention_head(
                    p,
                    &q.q[at..at + p.head_dim],
                    q_scale,
                    h / heads_a_kv,
                    pos,
                    span.rows,
                    span.row_len,
                    &mut out[at..at + p.head_dim],
                );
            }
            row += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scale() -> impl Strategy<Value = Scale> {
        (any::<u16>(), any::<i16>()).prop_map(|(m, e)| Scale { m, e })
    }

    proptest! {
        #[test]
        fn every_step_is_total(d: i64, q in scale(), k in scale(), c in scale(), v in scale(), k_unit: Option<i16>,
                               v_unit: Option<i16>, max: i32, z: u64, acc: i64, f_out: u8, key: u32, dim in 1usize..=1024) {
            let factor = query_factor(q, c, k_unit, dim);
            prop_assert!(factor.c >= 0 && (1..=31).contains(&factor.f));
            let y = aligned(d, key_factor(k, k_unit), dim);
            prop_assert!(y.unsigned_abs() <= 1 << 30);
            let x = score(y, factor);
            prop_assert!(x.unsigned_abs() <= 1 << 29);
            for p_bits in [15, 23] {
                let f = value_factor(v, v_unit, p_bits);
                prop_assert!(u64::from(f) < 1 << (p_bits + 9));
                prop_assert!(weight(exp(x, max, factor), f, key, p_bits) < 1 << p_bits);
                finish(acc, z, v_unit, p_bits, f_out);
            }
        }

        #[test]
        fn true_units_and_maxima_need_no_clamp(x in -(1i32 << 29)..1 << 29, below in 0i32..1 << 30, f in 1u32..=31,
                                               v in scale(), above in 0i16..40, key: u32, wide: bool) {
            let p_bits = if wide { 23 } else { 15 };
            let factor = QueryFactor { c: 1, f };
            let e = exp(x, x.saturating_add(below), factor);
            prop_assert!(e <= crate::reference::exp2::ONE);
            let fine = high(e, value_factor(v, Some(v.e.saturating_add(above)), p_bits)) + dither(key);
            prop_assert!(fine >> 8 < 1 << p_bits);
        }

        #[test]
        fn is_the_real_softmax(seed: u64, len in 1usize..20) {
            let d = 8;
            let mut raw = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
            let mut byte = || { let mut b = [0]; raw.fill(&mut b); i32::from(b[0] as i8) };
            let row_len = kv_record_len(d);
            let mut rows = vec![0u8; len * row_len];
            for b in &mut rows { *b = byte().max(-127) as u8; }
            let mut v_scales = vec![];
            for r in rows.chunks_exact_mut(row_len) {
                r[d..d + 4].copy_from_slice(&Scale { m: 40_000, e: -20 }.to_bytes());
                let s = Scale { m: 33_000 + byte().unsigned_abs() as u16, e: -20 - (byte() & 3) as i16 };
                r[2 * d + 4..].copy_from_slice(&s.to_bytes());
                v_scales.push(f64::from(s.m) * f64::from(s.e).exp2());
            }
            let q: Vec<i16> = (0..d).map(|_| byte().max(-127) as i16).collect();
            let p = AttentionParams {
                heads: 1, kv_heads: 1, head_dim: d, scale: Scale { m: 1 << 15, e: -23 },
                p_bits: 23, window: 0, causal: true, f_out: 16,
            };
            let mut out = vec![0; d];
            attention_head(p, &q, Scale { m: 40_000, e: -20 }, 0, len as u32 - 1, &rows, row_len, &mut out);
            let unit = (40_000.0 * (-20f64).exp2()).powi(2) * (-8f64).exp2();
            let xs: Vec<f64> = rows.chunks_exact(row_len)
                .map(|r| dot(&q, cached(r, 0, d, false).0) as f64 * unit)
                .collect();
            let m = xs.iter().copied().fold(f64::MIN, f64::max);
            let z: f64 = xs.iter().map(|x| (x - m).exp2()).sum();
            for (i, got) in out.iter().enumerate() {
                let want: f64 = xs.iter().zip(rows.chunks_exact(row_len)).zip(&v_scales)
                    .map(|((x, r), s)| (x - m).exp2() / z * f64::from(cached(r, 0, d, true).0[i]) * s)
                    .sum();
                prop_assert!((want * 65536.0 - f64::from(*got)).abs() < 1.0 + 127.0 * 65536.0 * 0.04 * 1e-4);
            }
        }
    }

    #[test]
    fn zero_values_give_zero_and_zero_keys_give_the_mean() {
        let d = 4;
        let row_len = kv_record_len(d);
        let p = AttentionParams {
            heads: 1,
            kv_heads: 1,
            head_dim: d,
            scale: Scale { m: 1 << 15, e: -15 },
            p_bits: 15,
            window: 0,
            causal: true,
            f_out: 16,
        };
        let mut rows = vec![0u8; 2 * row_len];
        let mut out = [9; 4];
        attention_head(
            p,
            &[1; 4],
            Scale { m: 1 << 15, e: 0 },
            0,
            1,
            &rows,
            row_len,
            &mut out,
        );
        assert_eq!(out, [0; 4]);
        for (r, v) in rows.chunks_exact_mut(row_len).zip([10u8, 20]) {
            r[d + 4..2 * d + 4].fill(v);
            r[2 * d + 4..].copy_from_slice(&Scale { m: 1 << 15, e: -15 }.to_bytes());
        }
        attention_head(
            p,
            &[1; 4],
            Scale { m: 1 << 15, e: 0 },
            0,
            1,
            &rows,
            row_len,
            &mut out,
        );
        for o in out {
            assert!((o - (15 << 16)).abs() < 64, "{o}");
        }
    }

    #[test]
    fn windows_and_causality_cut_the_keys() {
        assert_eq!(visible(5, 6, true, 0), (0, 6));
        assert_eq!(visible(5, 9, true, 2), (4, 6));
        assert_eq!(visible(0, 9, false, 0), (0, 9));
        assert_eq!(visible(0, 9, true, 4), (0, 1));
    }
}
