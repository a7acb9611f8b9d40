//! Attention over the int8 cache, read where it lies: heads of query rows go to threads; dot products, scores,
//! weights and the weighted sum of values are vector loops over the visible keys.

use crate::{
    num::Scale,
    ops::{AttentionParams, KvSpan, QuantRows},
    reference::attention::{exp, finish, score, unit, visible, weight},
    rows::kv_record_offset,
};

use super::{keys::Scales, simd::Simd, split::by_rows};

/// Keys whose dot products are taken at once.
const KEYS: usize = 4;
/// Rough cost of a key's score and weight, in the multiply-adds that [`super::split`] counts in.
const KEY_WORK: usize = 128;
/// Bits of a probability plane: a non-negative int16.
const PLANE_BITS: u32 = 15;

/// What one head needs while it is worked on; kept from head to head to save allocations.
#[derive(Default)]
struct Scratch {
    /// Query row and KV head whose scales are held: the heads that share them follow one another.
    held: Option<(usize, usize)>,
    k: Scales,
    v: Scales,
    dots: Vec<i64>,
    scores: Vec<i32>,
    weights: Vec<u32>,
    plane: Vec<i16>,
    acc: Vec<i64>,
}

/// A query row's place: its span and its position in the sequence.
#[derive(Clone, Copy)]
struct Query<'a> {
    row: usize,
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
    let places = spans
        .iter()
        .flat_map(|span| (span.first..).take(span.count).map(|pos| (*span, pos)));
    let queries: Vec<Query<'_>> = places
        .enumerate()
        .map(|(row, (span, pos))| Query { row, span, pos })
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

/// The records of one KV head in the rows that a query sees.
#[derive(Clone, Copy)]
struct Records<'a> {
    /// From the first visible row's record on.
    bytes: &'a [i8],
    row_len: usize,
    head_dim: usize,
    count: usize,
}

impl<'a> Records<'a> {
    /// Key `j`.
    #[inline]
    fn key(&self, j: usize) -> &'a [i8] {
        &self.bytes[j * self.row_len..][..self.head_dim]
    }

    /// Where the first value starts; the others follow every `row_len`.
    fn values(&self) -> &'a [i8] {
        self.bytes.get(self.head_dim + 4..).unwrap_or(&[])
    }

    /// Scales of all keys or of all values.
    fn scales(&self, value: bool) -> impl Iterator<Item = Scale> + Clone + 'a {
        let at = self.head_dim + if value { self.head_dim + 4 } else { 0 };
        self.bytes
            .chunks(self.row_len)
            .take(self.count)
            .map(move |record| {
                let s = &record[at..at + 4];
                Scale::from_bytes([s[0], s[1], s[2], s[3]].map(i8::cast_unsigned))
            })
    }
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
    let start = lo as usize * row_len + kv_record_offset(kv_head, p.head_dim);
    let records = Records {
        bytes: bytemuck::cast_slice(rows.get(start..).unwrap_or(&[])),
        row_len,
        head_dim: p.head_dim,
        count: (n - lo) as usize,
    };
    if s.held != Some((query.row, kv_head)) {
        s.held = Some((query.row, kv_head));
        s.k.set(records.scales(false));
        s.v.set(records.scales(true));
    }
    scores(simd, q, q_scale, p.scale, records, s);
    let max = s.scores.iter().copied().max().unwrap_or(0);
    let r = simd.max_weighted(&s.scores, &s.v).map(|w| unit(w, max));
    let z = weights(simd, p, max, r, s);
    values(simd, p, records, s);
    for (out, acc) in out.iter_mut().zip(&s.acc) {
        *out = finish(*acc, z, r, p.p_bits, p.f_out);
    }
}

/// A2, A3: scores of all keys.
fn scores(simd: Simd, q: &[i16], q_scale: Scale, c: Scale, records: Records<'_>, s: &mut Scratch) {
    let count = records.count;
    s.dots.clear();
    let whole = count - count % KEYS;
    for j in (0..whole).step_by(KEYS) {
        let dots = simd.tile::<KEYS, 1>(std::array::from_fn(|i| records.key(j + i)), [q]);
        s.dots.extend(dots.as_flattened());
    }
    for j in whole..count {
        let [[dot]] = simd.tile([records.key(j)], [q]);
        s.dots.push(dot);
    }
    s.scores.resize(count, 0);
    if simd.scores(&s.dots, q_scale, &s.k, c, &mut s.scores).is_none() {
        for (j, (x, dot)) in s.scores.iter_mut().zip(&s.dots).enumerate() {
            *x = score(*dot, q_scale, s.k.get(j), c);
        }
    }
}

/// A5, A6: weights of all keys; returns the sum of their shares.
fn weights(simd: Simd, p: AttentionParams, max: i32, r: Option<i32>, s: &mut Scratch) -> u64 {
    s.weights.resize(s.scores.len(), 0);
    if let Some(z) = simd.weights(&s.scores, max, &s.v, r, p.p_bits, &mut s.weights) {
        return z;
    }
    let mut z = 0;
    for (j, (w, x)) in s.weights.iter_mut().zip(&s.scores).enumerate() {
        let e = exp(*x, max);
        z += u64::from(e);
        *w = r.map_or(0, |r| weight(e, s.v.get(j), r, p.p_bits));
    }
    z
}

/// A7: the sum over keys of weight times value, one plane of 15 bits at a time.
fn values(simd: Simd, p: AttentionParams, records: Records<'_>, s: &mut Scratch) {
    let (rows, stride) = (records.values(), records.row_len);
    s.acc.clear();
    s.acc.resize(p.head_dim, 0);
    if u32::from(p.p_bits) > PLANE_BITS {
        s.plane.clear();
        s.plane.extend(s.weights.iter().map(|w| (w >> PLANE_BITS) as i16));
        simd.weighted_rows(&s.plane, rows, stride, &mut s.acc);
        for acc in &mut s.acc {
            *acc <<= PLANE_BITS;
        }
    }
    s.plane.clear();
    s.plane
        .extend(s.weights.iter().map(|w| (w & ((1 << PLANE_BITS) - 1)) as i16));
    simd.weighted_rows(&s.plane, rows, stride, &mut s.acc);
}
