//! Two-pass integer attention (rules A1 to A9). Both passes are a max and sums, so any split of the keys
//! gives the same integers.

use crate::{
    num::{Scale, bitlen, rsr, sat32},
    ops::{AttentionParams, KvSpan, QuantRows},
    reference::exp2::exp2_neg,
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

/// A3: the query's mantissa with the site's folded in, at most 16 bits.
pub fn query_mantissa(q: Scale, c: Scale) -> i64 {
    rsr(i64::from(q.m) * i64::from(c.m), 16)
}

/// A3: score of a key in log2 units, Q16, from its dot product.
pub fn score(dot: i64, q: Scale, k: Scale, c: Scale) -> i32 {
    let shift = -(i32::from(q.e) + i32::from(k.e) + i32::from(c.e) + 32);
    let m = query_mantissa(q, c) * i64::from(k.m);
    sat32(rsr(dot.saturating_mul(m), shift))
}

/// A4: the key's weighted score, whose maximum over keys with a V mantissa gives the unit; None where the V
/// scale is zero.
pub fn weighted_score(x: i32, v: Scale) -> Option<i64> {
    (v.m != 0).then(|| i64::from(x) + ((i64::from(v.e) + 16) << 16))
}

/// A4: whole log2 units r of the largest weighted value, from its weighted score and the largest score.
pub fn unit(max_weighted: i64, max: i32) -> i32 {
    // |max_weighted - max| < 2^33 for any scores and scales; the clamp is for numbers that are neither.
    let units = max_weighted.saturating_sub(i64::from(max)).saturating_add(0xffff) >> 16;
    units.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
}

/// A5: a key's share of Z.
pub fn exp(x: i32, max: i32) -> u32 {
    exp2_neg((i64::from(max) - i64::from(x)).unsigned_abs())
}

/// A6: a key's probability times its V scale, in units of 2^(r - p_bits).
pub fn weight(e: u32, v: Scale, r: i32, p_bits: u8) -> u32 {
    let w = rsr(i64::from(e) * i64::from(v.m), 16);
    let shift = r.saturating_add(15 - i32::from(v.e) - i32::from(p_bits));
    rsr(w, shift).min((1 << p_bits) - 1) as u32
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

/// A9: one element of the head's output; `r` is None where every V scale is zero, which gives 0.
pub fn finish(acc: i64, z: u64, r: Option<i32>, p_bits: u8, f_out: u8) -> i32 {
    let Some(r) = r else { return 0 };
    let (rc, b) = reciprocal(z);
    let shift = (i32::from(p_bits) + b - 16 - i32::from(f_out)).saturating_sub(r);
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
    /// Scores of the visible keys.
    pub scores: Vec<i32>,
    /// Largest score.
    pub max: i32,
    /// Unit, None where every V scale is zero.
    pub r: Option<i32>,
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
    let row = |j: u32| &rows[j as usize * row_len..(j as usize + 1) * row_len];
    let v_scales: Vec<Scale> = (lo..n)
        .map(|j| cached(row(j), kv_head, p.head_dim, true).1)
        .collect();
    let scores: Vec<i32> = (lo..n)
        .map(|j| {
            let (k, k_scale) = cached(row(j), kv_head, p.head_dim, false);
            score(dot(q, k), q_scale, k_scale, p.scale)
        })
        .collect();
    let max = scores.iter().copied().max().unwrap_or(0);
    let r = scores
        .iter()
        .zip(&v_scales)
        .filter_map(|(x, v)| weighted_score(*x, *v))
        .max()
        .map(|w| unit(w, max));
    let exps: Vec<u32> = scores.iter().map(|x| exp(*x, max)).collect();
    let weights = exps
        .iter()
        .zip(&v_scales)
        .map(|(e, v)| r.map_or(0, |r| weight(*e, *v, r, p.p_bits)))
        .collect();
    HeadSums {
        lo,
        max,
        r,
        weights,
        z: exps.iter().map(|e| u64::from(*e)).sum(),
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
        *o = finish(*a, sums.z, sums.r, p.p_bits, p.f_out);
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
        fn every_step_is_total(d: i64, q in scale(), k in scale(), c in scale(), v in scale(),
                               max: i32, z: u64, acc: i64, f_out: u8) {
            let x = score(d, q, k, c);
            let max = max.max(x);
            let r = weighted_score(x, v).map(|w| unit(w, max));
            for p_bits in [15, 23] {
                let w = weight(exp(x, max), v, r.unwrap_or(0), p_bits);
                prop_assert!(w < 1 << p_bits);
                finish(acc, z, r, p_bits, f_out);
            }
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
