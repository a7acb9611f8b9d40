//! Row-wise rules as loops that the compiler vectorises for whatever instruction set their caller is compiled
//! for. Where a loop does not hold (scales that no model has), the reference does the row.
//!
//! 64-bit vectors have no arithmetic shift, and products of signed and unsigned numbers cost more than of two
//! unsigned ones, so magnitudes are multiplied and the sign is put back: with p = |x| c, rounding half up is
//! (p + half) >> s above zero and -((p + half - 1) >> s) below. Wrapping operators because overflow checks
//! stop vectorisation; each stands beside what shows that nothing wraps.

use crate::{
    num::Scale,
    ops::{NormParams, QuantParams},
    program::{Activation, RopeStyle},
    reference::{
        glu,
        norm::{self, GroupNorm},
        quant::{GroupParams, group_params, q_max, wht_shift},
        tables::SIGMOID,
    },
};

/// Elements of a gated unit whose shares are looked up before any is used.
const CHUNK: usize = 64;

/// Largest magnitude; `i32::MIN` counts as 2^31.
#[inline(always)]
fn absmax(x: &[i32]) -> u32 {
    x.iter().fold(0, |max, v| max.max(v.unsigned_abs()))
}

/// N1 for shifts 0 to 31.
#[inline(always)]
fn down(v: i32, s: u32) -> i32 {
    if s == 0 {
        v
    } else {
        // At most 2^30 and a one.
        (v >> s).wrapping_add((v >> (s - 1)) & 1)
    }
}

/// `p * 2^-s` with the sign of `negative`, halves up; 1 <= s <= 62 and p + 2^(s-1) < 2^64.
#[inline(always)]
fn signed_round(p: u64, negative: bool, s: u32) -> i64 {
    let half = 1u64.wrapping_shl(s.wrapping_sub(1));
    let r = p
        .wrapping_add(half)
        .wrapping_sub(u64::from(negative))
        .wrapping_shr(s) as i64;
    if negative { r.wrapping_neg() } else { r }
}

/// Every group of some rows, a scale each.
#[inline(always)]
pub(super) fn quant_rows(p: QuantParams, x: &[i32], q: &mut [i16], scales: &mut [Scale]) {
    let mut copy = Vec::new();
    let groups = x.chunks_exact(p.group).zip(q.chunks_exact_mut(p.group));
    for ((x, q), s) in groups.zip(scales) {
        *s = quantise(p, x, &mut copy, q);
    }
}

/// Q1 to Q6 and W1 to W3 for one group; `copy` is room for the transform.
#[inline(always)]
fn quantise(p: QuantParams, x: &[i32], copy: &mut Vec<i32>, q: &mut [i16]) -> Scale {
    let (x, shift) = if p.wht == 0 {
        (x, 0)
    } else {
        copy.clear();
        copy.extend_from_slice(x);
        let shift = transform(copy, p.wht);
        (copy.as_slice(), shift)
    };
    let params = group_params(absmax(x), p.planes, p.f_in, shift);
    elements(x, p.planes, params, q);
    params.scale
}

/// Q6.
#[inline(always)]
fn elements(x: &[i32], planes: u8, p: GroupParams, q: &mut [i16]) {
    let (limit, recip) = (q_max(planes), p.recip as u64 & 0xffff_ffff);
    // The group's own shift: 24 bits, or 25 after rounding; `recip` <= 32,639 * 2^40 / 2^23 < 2^32.
    let scaled = |v: i32| {
        let product = u64::from(v.unsigned_abs()).wrapping_mul(recip);
        signed_round(product, v < 0, 40).clamp(-limit, limit) as i16
    };
    // A loop for each direction: one that decides for every element is not vectorised.
    if let Ok(left) = u32::try_from(-p.shift) {
        for (q, v) in q.iter_mut().zip(x) {
            *q = scaled(v.wrapping_shl(left));
        }
    } else {
        let right = p.shift as u32;
        for (q, v) in q.iter_mut().zip(x) {
            let half = (*v >> right.wrapping_sub(1)) & 1;
            *q = scaled((*v >> right).wrapping_add(half));
        }
    }
}

/// W2's sums and differences of elements `H` apart; nothing wraps, as in [`transform`].
#[inline(always)]
fn butterflies<const H: usize>(v: [i32; 8]) -> [i32; 8] {
    let mut out = [0; 8];
    for i in 0..8 {
        // All ones negates: the second of a pair is taken from the first.
        let sign = if i & H == 0 { 0 } else { -1 };
        out[i] = v[i ^ H].wrapping_add((v[i] ^ sign).wrapping_sub(sign));
    }
    out
}

/// W1 to W3 in place; returns W1's shift.
#[inline(always)]
fn transform(group: &mut [i32], block: usize) -> i32 {
    const LIMIT: i32 = (1 << 22) - 1;
    let shift = wht_shift(absmax(group));
    for v in group.iter_mut() {
        *v = down(*v, shift as u32).clamp(-LIMIT, LIMIT);
    }
    // At most 512 values of 22 bits are added (W2): nothing wraps.
    let mut h = 1;
    if block >= 8 {
        // Inside a vector by shuffles: pairs of one, two or four elements went one by one.
        for eight in group.as_chunks_mut::<8>().0 {
            *eight = butterflies::<4>(butterflies::<2>(butterflies::<1>(*eight)));
        }
        h = 8;
    }
    while h < block {
        for pair in group.chunks_exact_mut(2 * h) {
            let (a, b) = pair.split_at_mut(h);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (a.wrapping_add(*b), a.wrapping_sub(*b));
            }
        }
        h *= 2;
    }
    shift
}

/// Every group of some rows.
#[inline(always)]
pub(super) fn rms_norm_rows(p: NormParams<'_>, x: &[i32], out: &mut [i32]) {
    let group = p.gain.len();
    for (x, out) in x.chunks_exact(group).zip(out.chunks_exact_mut(group)) {
        if !rms_norm(p, x, out) {
            norm::rms_norm(p, x, out);
        }
    }
}

/// R1 to R6 for one group; false where the last shift is no usual one.
#[inline(always)]
fn rms_norm(p: NormParams<'_>, h: &[i32], out: &mut [i32]) -> bool {
    let shift = norm::shift(absmax(h));
    // Up to 32,768 squares of 23-bit numbers.
    let sum = h.iter().fold(0u64, |sum, v| {
        let x = u64::from(down(*v, shift as u32).unsigned_abs());
        sum.wrapping_add((x & 0xffff_ffff).wrapping_mul(x & 0xffff_ffff))
    });
    let GroupNorm { iv, e, .. } = norm::group_norm(sum, h.len(), p.eps, shift);
    let last = i32::from(p.gain_f) - i32::from(p.f_out) - e - 23;
    if !(1..=61).contains(&last) {
        return false;
    }
    for ((o, h), gain) in out.iter_mut().zip(h).zip(p.gain) {
        // |x| <= 2^23 and iv <= 2^31, so |y| <= 2^31; with a gain of 31 bits, 2^62.
        let x = down(*h, shift as u32);
        let y = signed_round(
            u64::from(x.unsigned_abs()).wrapping_mul(iv as u64 & 0xffff_ffff),
            x < 0,
            23,
        );
        let product = (y.unsigned_abs() & 0xffff_ffff).wrapping_mul(u64::from(gain.unsigned_abs()));
        let z = signed_round(product, (y < 0) != (*gain < 0), last as u32);
        *o = z.clamp(-i64::from(i32::MAX), i64::from(i32::MAX)) as i32;
    }
    true
}

/// Every head of some rows; row i is at `positions[i]`.
#[inline(always)]
pub(super) fn rope_rows(
    table: &[i16],
    head_dim: usize,
    style: RopeStyle,
    positions: &[u32],
    x: &[i32],
    out: &mut [i32],
) {
    let cols = x.len().checked_div(positions.len()).unwrap_or(0).max(1);
    let rows = x.chunks_exact(cols).zip(out.chunks_exact_mut(cols));
    for (pos, (x, out)) in positions.iter().zip(rows) {
        let table_row = &table[*pos as usize * head_dim..][..head_dim];
        for (x, out) in x.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim)) {
            rope_head(table_row, style, x, out);
        }
    }
}

/// P1 and P2 for one head.
#[inline(always)]
fn rope_head(table_row: &[i16], style: RopeStyle, x: &[i32], out: &mut [i32]) {
    let half = x.len() / 2;
    let (cos, sin) = table_row.split_at(half);
    match style {
        RopeStyle::Interleaved => {
            let pairs = x.as_chunks::<2>().0.iter().zip(out.as_chunks_mut::<2>().0);
            for ((x, out), (c, s)) in pairs.zip(cos.iter().zip(sin)) {
                *out = rotate(x[0], x[1], *c, *s);
            }
        }
        RopeStyle::Halves => {
            let (a, b) = x.split_at(half);
            let (out_a, out_b) = out.split_at_mut(half);
            for i in 0..half {
                [out_a[i], out_b[i]] = rotate(a[i], b[i], cos[i], sin[i]);
            }
        }
    }
}

/// P2.
#[inline(always)]
fn rotate(a: i32, b: i32, cos: i16, sin: i16) -> [i32; 2] {
    // Two products of 46 bits.
    let (a, b, c, s) = (i64::from(a), i64::from(b), i64::from(cos), i64::from(sin));
    let x = a.wrapping_mul(c).wrapping_sub(b.wrapping_mul(s));
    let y = b.wrapping_mul(c).wrapping_add(a.wrapping_mul(s));
    [x, y].map(|v| {
        let v = v.wrapping_add(1 << 14) >> 15;
        v.clamp(-i64::from(i32::MAX), i64::from(i32::MAX)) as i32
    })
}

/// Entries of the sigmoid table with the rise to the next above 17 bits; the last stands for all beyond.
static SIGMOID_STEPS: [u32; 513] = {
    let mut steps = [0; 513];
    let mut i = 0;
    while i < 512 {
        steps[i] = SIGMOID[i] as u32 | ((SIGMOID[i + 1] - SIGMOID[i]) as u32) << 17;
        i += 1;
    }
    steps[512] = 1 << 16;
    steps
};

/// G1 to G4.
#[inline(always)]
pub(super) fn glu_rows(act: Activation, f: u8, gate: &[i32], up: &[i32], out: &mut [i32]) {
    if !(16..=46).contains(&f) {
        return glu::glu_rows(act, f, gate, up, out);
    }
    let f = u32::from(f);
    let pieces = out
        .chunks_mut(CHUNK)
        .zip(gate.chunks(CHUNK).zip(up.chunks(CHUNK)));
    for (out, (gate, up)) in pieces {
        let mut shares = [0i32; CHUNK];
        if matches!(act, Activation::Silu) {
            sigmoids(f - 16, gate, &mut shares);
        } else {
            for (share, gate) in shares.iter_mut().zip(gate) {
                // 0 ..= 65,536.
                *share = glu::share(act, glu::argument(*gate, f as u8)) as i32;
            }
        }
        for (((out, gate), up), share) in out.iter_mut().zip(gate).zip(up).zip(&shares) {
            // |gate| * share < 2^48, its 16th part an int32 again, times up below 2^62.
            let bent = i64::from(*gate)
                .wrapping_mul(i64::from(*share))
                .wrapping_add(1 << 15)
                >> 16;
            let y = i64::from(bent as i32).wrapping_mul(i64::from(*up));
            let half = 1i64.wrapping_shl(f.wrapping_sub(1));
            let y = y.wrapping_add(half).wrapping_shr(f);
            *out = y.clamp(-i64::from(i32::MAX), i64::from(i32::MAX)) as i32;
        }
    }
}

/// D1.
#[inline(always)]
pub(super) fn add_rows(a: &[i32], b: &[i32], out: &mut [i32]) {
    for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
        *o = a.saturating_add(*b).max(-i32::MAX);
    }
}

/// G1 and G2 for the sigmoid: entries are looked up one by one between two loops that are vectorised.
#[inline(always)]
fn sigmoids(shift: u32, gate: &[i32], shares: &mut [i32; CHUNK]) {
    let mut x = [0i32; CHUNK];
    let len = gate.len().min(CHUNK);
    if shift == 0 {
        x[..len].copy_from_slice(&gate[..len]);
    } else {
        for (x, gate) in x.iter_mut().zip(gate) {
            let half = (*gate >> shift.wrapping_sub(1)) & 1;
            *x = (*gate >> shift).wrapping_add(half);
        }
    }
    let mut entries = [0u32; CHUNK];
    for (entry, x) in entries.iter_mut().zip(&x) {
        *entry = SIGMOID_STEPS[(x.unsigned_abs() >> 11).min(512) as usize];
    }
    for i in 0..CHUNK {
        let (low, rise) = (entries[i] & 0x1_ffff, entries[i] >> 17);
        // A rise is below 2^11.
        let part = rise
            .wrapping_mul(x[i].unsigned_abs() & 0x7ff)
            .wrapping_add(1 << 10)
            >> 11;
        let y = low.wrapping_add(part) as i32;
        shares[i] = if x[i] < 0 { (1i32 << 16).wrapping_sub(y) } else { y };
    }
}

/// Of each `group` of integers, the sum of squares of |q| / 2^shift, each rounded up or more: groups of up to 2^32
/// integers, and |q| / 2^shift below 2^10.
#[inline(always)]
pub(super) fn rough_squares(q: &[i16], group: usize, shift: u32, squares: &mut [u64]) {
    /// Squares of up to 2^20 in an int32.
    const PIECE: usize = 1024;
    for (q, squares) in q.chunks_exact(group.max(1)).zip(squares) {
        *squares = 0;
        for piece in q.chunks(PIECE) {
            let mut sum = 0i32;
            for v in piece {
                let v = v.unsigned_abs().wrapping_shr(shift).wrapping_add(1).cast_signed();
                sum = sum.wrapping_add(i32::from(v).wrapping_mul(i32::from(v)));
            }
            *squares = squares.wrapping_add(u64::from(sum.cast_unsigned()));
        }
    }
}
