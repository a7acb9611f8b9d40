//! Ops that treat every row, head or element alone: cut into blocks of rows, each block done by the loops
//! of [`super::lanes`].

use rayon::prelude::*;

use crate::{
    ops::{HostWeight, NormParams, QuantParams, QuantRows},
    program::{Activation, RopeStyle},
    reference::embed,
};

use super::{
    Isa, compiled,
    split::{by_rows, rows_a_block, threads},
};

/// Rough cost of one element of these ops, in the multiply-adds that [`super::split`] counts in.
const WORK: usize = 8;

/// Rows of the table.
pub(super) fn embed(weight: &HostWeight, ids: &[u32], f_out: u8, out: &mut [i32]) {
    by_rows(out, weight.k, weight.k * WORK, |first, block| {
        let rows = block.len() / weight.k;
        embed::embed_rows(weight, &ids[first..first + rows], f_out, block);
    });
}

/// Norm of each group.
pub(super) fn rms_norm(isa: Isa, p: NormParams<'_>, x: &[i32], out: &mut [i32]) {
    let group = p.gain.len();
    by_rows(out, group, group * WORK, |first, block| {
        compiled::rms_norm_rows(isa, p, &x[first * group..first * group + block.len()], block);
    });
}

/// Quantisation of each group.
pub(super) fn quant(isa: Isa, p: QuantParams, x: &[i32], out: &mut QuantRows) {
    let groups = out.scales.len();
    let block = rows_a_block(groups, p.group * WORK, threads());
    if groups <= block {
        return compiled::quant_rows(isa, p, x, &mut out.q, &mut out.scales);
    }
    let parts = out
        .q
        .par_chunks_mut(block * p.group)
        .zip(out.scales.par_chunks_mut(block));
    x.par_chunks(block * p.group)
        .zip(parts)
        .for_each(|(x, (q, scales))| compiled::quant_rows(isa, p, x, q, scales));
}

/// RoPE of rows of heads.
pub(super) fn rope(
    isa: Isa,
    table: &[i16],
    head_dim: usize,
    style: RopeStyle,
    positions: &[u32],
    x: &[i32],
    out: &mut [i32],
) {
    let cols = out.len().checked_div(positions.len()).unwrap_or(0);
    by_rows(out, cols, cols * WORK, |first, block| {
        let rows = block.len().checked_div(cols).unwrap_or(0);
        let x = &x[first * cols..first * cols + block.len()];
        compiled::rope_rows(
            isa,
            table,
            head_dim,
            style,
            &positions[first..first + rows],
            x,
            block,
        );
    });
}

/// act(gate) * up.
pub(super) fn glu(isa: Isa, act: Activation, f: u8, gate: &[i32], up: &[i32], out: &mut [i32]) {
    by_rows(out, 1, WORK, |first, block| {
        let range = first..first + block.len();
        compiled::glu_rows(isa, act, f, &gate[range.clone()], &up[range], block);
    });
}

/// a + b.
pub(super) fn add(isa: Isa, a: &[i32], b: &[i32], out: &mut [i32]) {
    by_rows(out, 1, 1, |first, block| {
        let range = first..first + block.len();
        compiled::add_rows(isa, &a[range.clone()], &b[range], block);
    });
}
