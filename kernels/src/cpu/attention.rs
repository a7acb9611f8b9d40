//! Attention over the int8 cache: heads of query rows go to threads; dot products and the weighted sum of
//! values are the vector loops, scores and weights follow the reference key by key.

use crate::{
    num::Scale,
    ops::{AttentionParams, KvSpan, QuantRows},
    reference::attention::{cached, exp, finish, score, unit, visible, weight, weighted_score},
};

use super::{simd::Simd, split::by_rows};

/// Keys whose dot products are taken at once.
const KEYS: usize = 4;
/// Rough cost of a key's score and weight, in the multiply-adds that [`super::split`] counts in.
const KEY_WORK: usize = 512;
/// Bits of a probability plane: a non-negative int16.
const PLANE_BITS: u32 = 15;

/// What one head needs while it is worked on; kept from head to head to save allocations.
#[derive(Default)]
struct Scratch {
    scores: Vec<i32>,
    v_scales: Vec<Scale>,
    low: Vec<i16>,
    high: Vec<i16>,
    acc: Vec<i64>,
}

/// A query row's place: its span and its position in the sequence.
#[derive(Clone, Copy)]
struct Query<'a> {
    span: KvSpan<'a>,
    pos: u32,
}

/// Every head of every query row (rules A1 to A9); `out` is `[q.rows, heads * head_dim]`.
pub(super) fn attention(
    simd: Simd,
    p: AttentionParams,
    q: &QuantRows,
    spans: &[KvSpan<'_>],
    out: &mut [i32],
) {
    let queries: Vec<Query<'_>> = spans
        .iter()
        .flat_map(|span| {
            (span.first..)
                .take(span.count)
                .map(|pos| Query { span: *span, pos })
        })
        .collect();
    let keys = queries.iter().map(|q| q.span.rows.len() / q.span.row_len).max();
    let work = keys.unwrap_or(0) * (p.head_dim + KEY_WORK);
    let heads_a_kv = p.heads / p.kv_heads;
    by_rows(out, p.head_dim, work, |first, block| {
        let mut scratch = Scratch::default();
        for (i, out) in (first..).zip(block.chunks_exact_mut(p.head_dim)) {
            let (row, head) = (i / p.heads, i % p.heads);
            let values = &q.q[i * p.head_dim..(i + 1) * p.head_dim];
            head_row(
                simd,
                p,
                values,
                q.scales[i],
                head / heads_a_kv,
                queries[row],
                &mut scratch,
                out,
            );
        }
    });
}

/// One query head.
fn head_row(
    simd: Simd,
    p: AttentionParams,
    q: &[i16],
    q_scale: Scale,
    kv_head: usize,
    query: Query<'_>,
    s: &mut Scratch,
    out: &mut [i32],
) {
    let KvSpan { rows, row_len, .. } = query.span;
    let (lo, n) = visible(query.pos, (rows.len() / row_len) as u32, p.causal, p.window);
    let count = (n - lo) as usize;
    let part =
        |j: usize, value: bool| cached(&rows[(lo as usize + j) * row_len..], kv_head, p.head_dim, value);

    s.scores.clear();
    let whole = count - count % KEYS;
    for j in (0..whole).step_by(KEYS) {
        let keys: [_; KEYS] = std::array::from_fn(|i| part(j + i, false));
        let dots = simd.tile(keys.map(|(k, _)| k), [q]);
        for ((_, k_scale), [dot]) in keys.iter().zip(dots) {
            s.scores.push(score(dot, q_scale, *k_scale, p.scale));
        }
    }
    for j in whole..count {
        let (k, k_scale) = part(j, false);
        let [[dot]] = simd.tile([k], [q]);
        s.scores.push(score(dot, q_scale, k_scale, p.scale));
    }
    s.v_scales.clear();
    s.v_scales.extend((0..count).map(|j| part(j, true).1));
    let max = s.scores.iter().copied().max().unwrap_or(0);
    let r = s
        .scores
        .iter()
        .zip(&s.v_scales)
        .filter_map(|(x, v)| weighted_score(*x, *v))
        .max()
        .map(|w| unit(w, max));

    let mut z = 0u64;
    s.low.clear();
    s.high.clear();
    let mut any_high = 0;
    for (x, v) in s.scores.iter().zip(&s.v_scales) {
        let e = exp(*x, max);
        z += u64::from(e);
        let w = r.map_or(0, |r| weight(e, *v, r, p.p_bits));
        s.low.push((w & ((1 << PLANE_BITS) - 1)) as i16);
        s.high.push((w >> PLANE_BITS) as i16);
        any_high |= w >> PLANE_BITS;
    }
    let value = |j: usize| part(j, true).0;
    s.acc.clear();
    s.acc.resize(p.head_dim, 0);
    if any_high != 0 {
        simd.weighted_rows(&s.high, value, &mut s.acc);
        for acc in &mut s.acc {
            *acc <<= PLANE_BITS;
        }
    }
    simd.weighted_rows(&s.low, value, &mut s.acc);
    for (out, acc) in out.iter_mut().zip(&s.acc) {
        *out = finish(*acc, z, r, p.p_bits, p.f_out);
    }
}
