//! Rotary position embedding (rules P1, P2).

use crate::{
    num::{rsr, sat32},
    program::RopeStyle,
};

/// P2: rotates one pair by a Q15 cosine and sine.
pub fn rotate(a: i32, b: i32, cos: i16, sin: i16) -> (i32, i32) {
    let (a, b, c, s) = (i64::from(a), i64::from(b), i64::from(cos), i64::from(sin));
    (sat32(rsr(a * c - b * s, 15)), sat32(rsr(b * c + a * s, 15)))
}

/// P1: the two elements of pair `i` in a head of `d`.
pub const fn pair(i: usize, d: usize, style: RopeStyle) -> (usize, usize) {
    match style {
        RopeStyle::Interleaved => (2 * i, 2 * i + 1),
        RopeStyle::Halves => (i, i + d / 2),
    }
}

/// One head; `table_row` holds d / 2 cosines, then d / 2 sines.
pub fn rope_head(table_row: &[i16], style: RopeStyle, x: &[i32], out: &mut [i32]) {
    let d = x.len();
    let (cos, sin) = table_row.split_at(d / 2);
    for (i, (c, s)) in cos.iter().zip(sin).enumerate() {
        let (a, b) = pair(i, d, style);
        (out[a], out[b]) = rotate(x[a], x[b], *c, *s);
    }
}

/// Every head of every row; row i is at `positions[i]`.
pub fn rope_rows(
    table: &[i16],
    head_dim: usize,
    style: RopeStyle,
    positions: &[u32],
    x: &[i32],
    out: &mut [i32],
) {
    if positions.is_empty() {
        return;
    }
    let cols = x.len() / positions.len();
    for ((pos, x), out) in positions
        .iter()
        .zip(x.chunks_exact(cols))
        .zip(out.chunks_exact_mut(cols))
    {
        let at = *pos as usize * head_dim;
        let table_row = &table[at..at + head_dim];
        for (x, out) in x.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim)) {
            rope_head(table_row, style, x, out);
        }
    }
}
