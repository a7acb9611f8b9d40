//! Attention over the int8 cache, read where it lies: heads of query rows go to threads; dot products, scores,
//! weights and the weighted sum of values are vector loops over the visible keys.

use crate::{
    num::Scale,
    ops::{AttentionParams, KvSpan, QuantRows},
    reference::attention::{finish_by, key_factor, query_factor, reciprocal, value_factor, visible},
    rows::kv_record_offset,
};

use super::{
    keys::{Factors, PLANE_BITS, Shares},
    simd::Simd,
    split::by_rows,
};

/// Rough cost of a key's score and weight, in the multiply-adds that [`super::split`] counts in.
const KEY_WORK: usize = 64;
/// Query heads of a group, at most: they share what is read of a block of keys.
const GROUP: usize = 8;
/// Keys of a block: for a head of 64 their records stay in the first-level cache.
const BLOCK: usize = 256;

/// The factors of one KV head's keys and values, as far as queries have seen them.
#[derive(Default)]
struct Held {
    /// Span and first visible row.
    place: Option<(usize, u32)>,
    k: Factors,
    v: Factors,
}

/// What one head needs while it is worked on; kept from head to head to save allocations.
#[derive(Default)]
struct Scratch {
    /// By KV head: the rows of a span follow one another, each sees a key more than the last.
    held: Vec<Held>,
    aligned: Vec<i32>,
    low: Vec<i16>,
    high: Vec<i16>,
    acc: Vec<i64>,
}

/// A query row's place: its span and its position in the sequence.
#[derive(Clone, Copy)]
struct Query<'a> {
    span_index: usize,
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
        .enumerate()
        .flat_map(|(span_index, span)| {
            (span.first..).take(span.count).map(move |pos| Query {
                span_index,
                span: *span,
                pos,
            })
        })
        .collect();
    let keys = queries.iter().map(|q| q.span.rows.len() / q.span.row_len).max();
    let work = keys.unwrap_or(0) * (p.head_dim + KEY_WORK);
    let heads_a_kv = p.heads / p.kv_heads;
    by_rows(out, p.head_dim, work, |first, block| {
        let mut scratch = Scratch::default();
        scratch.held.resize_with(p.kv_heads, Held::default);
        let (mut i, mut rest) = (first, block);
        while !rest.is_empty() {
            let (row, head) = (i / p.heads, i % p.heads);
            let left = heads_a_kv - head % heads_a_kv;
            let count = left.min(rest.len() / p.head_dim).min(GROUP);
            let (now, later) = rest.split_at_mut(count * p.head_dim);
            let group = Group {
                kv_head: head / heads_a_kv,
                q: &q.q[i * p.head_dim..(i + count) * p.head_dim],
                scales: &q.scales[i..i + count],
                query: queries[row],
            };
            head_group(simd, p, group, &mut scratch, now);
            (i, rest) = (i + count, later);
        }
    });
}

/// Query heads of one row that read one KV head.
#[derive(Clone, Copy)]
struct Group<'a> {
    kv_head: usize,
    /// Their integers, one head after the other.
    q: &'a [i16],
    /// A scale a head.
    scales: &'a [Scale],
    query: Query<'a>,
}

/// The records of one KV head in the rows that a query sees.
#[derive(Clone, Copy)]
struct Records<'a> {
    /// From the first visible row's record on.
    bytes: &'a [i8],
    row_len: usize,
    head_dim: usize,
}

impl<'a> Records<'a> {
    /// From key or value `first` on; the others follow every `row_len`.
    fn ints(&self, value: bool, first: usize) -> &'a [i8] {
        let at = first * self.row_len + if value { self.head_dim + 4 } else { 0 };
        self.bytes.get(at..).unwrap_or(&[])
    }

    /// Scales of some keys or values.
    fn scales(&self, value: bool, range: std::ops::Range<usize>) -> impl Iterator<Item = Scale> + 'a {
        let at = self.head_dim + if value { self.head_dim + 4 } else { 0 };
        self.bytes[range.start * self.row_len..]
            .chunks(self.row_len)
            .take(range.len())
            .map(move |record| {
                let s = &record[at..at + 4];
                Scale::from_bytes([s[0], s[1], s[2], s[3]].map(i8::cast_unsigned))
            })
    }
}

impl Held {
    /// Whether the factors of earlier queries serve; forgets them where they do not.
    fn open(&mut self, place: (usize, u32), count: usize) {
        if self.place != Some(place) || self.k.len() > count {
            self.place = Some(place);
            self.k.clear();
            self.v.clear();
        }
    }

    /// Reads the scales of records up to `end` that are not held yet.
    fn read(&mut self, records: Records<'_>, end: usize) {
        let first = self.k.len();
        if first < end {
            self.k.read(records.scales(false, first..end));
            self.v.read(records.scales(true, first..end));
        }
    }

    /// A3 for everything read.
    fn make(&mut self, p_bits: u8) {
        self.k.make(|s, unit| key_factor(s, unit).cast_unsigned());
        self.v.make(|s, unit| value_factor(s, unit, p_bits));
    }
}

/// One group of heads. Keys and values are read a block at a time for all of them.
fn head_group(simd: Simd, p: AttentionParams, group: Group<'_>, s: &mut Scratch, out: &mut [i32]) {
    let Group { query, kv_head, .. } = group;
    let KvSpan { rows, row_len, .. } = query.span;
    let (lo, n) = visible(query.pos, (rows.len() / row_len) as u32, p.causal, p.window);
    let start = lo as usize * row_len + kv_record_offset(kv_head, p.head_dim);
    let count = (n - lo) as usize;
    if count == 0 {
        return out.fill(0);
    }
    let records = Records {
        bytes: bytemuck::cast_slice(rows.get(start..).unwrap_or(&[])),
        row_len,
        head_dim: p.head_dim,
    };
    let heads = group.scales.len();
    let held = &mut s.held[kv_head];
    held.open((query.span_index, lo), count);
    s.aligned.resize(heads * count, 0);
    s.low.resize(heads * count, 0);
    let wide = u32::from(p.p_bits) > PLANE_BITS;
    s.high.resize(if wide { heads * count } else { 0 }, 0);

    // A2.
    for first in (0..count).step_by(BLOCK) {
        let end = count.min(first + BLOCK);
        held.read(records, end);
        for (q, dots) in group
            .q
            .chunks_exact(p.head_dim)
            .zip(s.aligned.chunks_exact_mut(count))
        {
            simd.dots(q, records.ints(false, first), row_len, &mut dots[first..end]);
        }
    }
    held.make(p.p_bits);

    // A3 to A6: the largest score, then shares and weights.
    let mut zs = [0; GROUP];
    for (h, (scale, z)) in group.scales.iter().zip(&mut zs).enumerate() {
        let range = h * count..(h + 1) * count;
        let aligned = &mut s.aligned[range.clone()];
        let max = simd.align(aligned, held.k.all(), p.head_dim);
        let shares = Shares {
            q: query_factor(*scale, p.scale, held.k.unit(), p.head_dim),
            max,
            first: lo as usize,
        };
        let high = if wide { &mut s.high[range.clone()] } else { &mut [] };
        *z = simd.shares(shares, aligned, held.v.all(), &mut s.low[range], high);
    }

    // A7: a plane of the weights at a time.
    s.acc.clear();
    s.acc.resize(heads * p.head_dim, 0);
    if wide {
        add_values(simd, &s.high, records, count, &mut s.acc);
        for acc in &mut s.acc {
            *acc <<= PLANE_BITS;
        }
    }
    add_values(simd, &s.low, records, count, &mut s.acc);
    let heads = out
        .chunks_exact_mut(p.head_dim)
        .zip(s.acc.chunks_exact(p.head_dim));
    for ((out, acc), z) in heads.zip(zs) {
        let reciprocal = reciprocal(z);
        for (out, acc) in out.iter_mut().zip(acc) {
            *out = finish_by(*acc, reciprocal, held.v.unit(), p.p_bits, p.f_out);
        }
    }
}

/// A7 for one plane: `planes` holds `count` weights a head, `acc` the heads' elements.
fn add_values(simd: Simd, planes: &[i16], records: Records<'_>, count: usize, acc: &mut [i64]) {
    for first in (0..count).step_by(BLOCK) {
        let end = count.min(first + BLOCK);
        let values = records.ints(true, first);
        for (plane, acc) in planes
            .chunks_exact(count)
            .zip(acc.chunks_exact_mut(records.head_dim))
        {
            simd.weighted_rows(&plane[first..end], values, records.row_len, acc);
        }
    }
}
