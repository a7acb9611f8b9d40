//! Embedding (rule E1): a row of the table in the residual's format.

use crate::{
    num::{Scale, rsr, sat32},
    ops::HostWeight,
    reference::linear::GROUP,
};

/// E1: one element; `mult` is 1 where the table is not grouped.
pub fn element(w: i8, mult: u8, scale: Scale, f_out: u8) -> i32 {
    let shift = -(i32::from(scale.e) + i32::from(f_out));
    sat32(rsr(i64::from(w) * i64::from(mult) * i64::from(scale.m), shift))
}

/// One row of the table.
pub fn row(weight: &HostWeight, id: usize, f_out: u8, out: &mut [i32]) {
    let mults = weight.mults(id);
    for (i, (o, w)) in out.iter_mut().zip(weight.row(id)).enumerate() {
        let mult = if mults.is_empty() { 1 } else { mults[i / GROUP] };
        *o = element(*w, mult, weight.scales[id], f_out);
    }
}

/// The rows of `ids`, each below the vocabulary; `out` is `[ids.len(), k]`.
pub fn embed_rows(weight: &HostWeight, ids: &[u32], f_out: u8, out: &mut [i32]) {
    for (id, out) in ids.iter().zip(out.chunks_exact_mut(weight.k)) {
        row(weight, *id as usize, f_out, out);
    }
}
