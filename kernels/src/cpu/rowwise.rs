//! Ops that treat every row, head or element alone: cut into blocks of rows, each block done as the reference
//! does it, without its copies.

use rayon::prelude::*;

use crate::{
    ops::{HostWeight, NormParams, QuantParams, QuantRows},
    program::{Activation, RopeStyle},
    reference::{add, embed, glu, norm, quant, rope},
};

use super::split::{by_rows, rows_a_block};

/// Rough cost of one element of these ops, in the multiply-adds that [`super::split`] counts in.
const WORK: usize = 32;

/// Rows of the table.
pub(super) fn embed(weight: &HostWeight, ids: &[u32], f_out: u8, out: &mut [i32]) {
    by_rows(out, weight.k, weight.k * WORK, |first, block| {
        let rows = block.len() / weight.k;
        embed::embed_rows(weight, &ids[first..first + rows], f_out, block);
    });
}

/// Norm of each group.
pub(super) fn rms_norm(p: NormParams<'_>, x: &[i32], out: &mut [i32]) {
    let group = p.gain.len();
    by_rows(out, group, group * WORK, |first, block| {
        norm::rms_norm_rows(p, &x[first * group..first * group + block.len()], block);
    });
}

/// Quantisation of each group.
pub(super) fn quant(p: QuantParams, x: &[i32], out: &mut QuantRows) {
    let groups = out.scales.len();
    let block = rows_a_block(groups, p.group * WORK, rayon::current_num_threads());
    let work = |(x, (q, scales)): (&[i32], (&mut [i16], &mut [_]))| {
        let mut copy = Vec::new();
        for ((x, q), s) in x
            .chunks_exact(p.group)
            .zip(q.chunks_exact_mut(p.group))
            .zip(scales)
        {
            *s = quantise(p, x, &mut copy, q);
        }
    };
    if groups <= block {
        work((x, (&mut out.q, &mut out.scales)));
    } else {
        x.par_chunks(block * p.group)
            .zip(
                out.q
                    .par_chunks_mut(block * p.group)
                    .zip(out.scales.par_chunks_mut(block)),
            )
            .for_each(work);
    }
}

/// One group; `copy` is room for the transform.
fn quantise(p: QuantParams, x: &[i32], copy: &mut Vec<i32>, q: &mut [i16]) -> crate::num::Scale {
    let (x, shift) = if p.wht == 0 {
        (x, 0)
    } else {
        copy.clear();
        copy.extend_from_slice(x);
        let shift = quant::wht(copy, p.wht);
        (copy.as_slice(), shift)
    };
    let max = x.iter().map(|v| v.unsigned_abs()).max().unwrap_or(0);
    let params = quant::group_params(max, p.planes, p.f_in, shift);
    for (q, x) in q.iter_mut().zip(x) {
        *q = quant::element(*x, p.planes, &params);
    }
    params.scale
}

/// RoPE of rows of heads.
pub(super) fn rope(
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
        rope::rope_rows(table, head_dim, style, &positions[first..first + rows], x, block);
    });
}

/// act(gate) * up.
pub(super) fn glu(act: Activation, f: u8, gate: &[i32], up: &[i32], out: &mut [i32]) {
    by_rows(out, 1, WORK, |first, block| {
        let range = first..first + block.len();
        glu::glu_rows(act, f, &gate[range.clone()], &up[range], block);
    });
}

/// a + b.
pub(super) fn add(a: &[i32], b: &[i32], out: &mut [i32]) {
    by_rows(out, 1, 1, |first, block| {
        let range = first..first + block.len();
        add::add_rows(&a[range.clone()], &b[range], block);
    });
}
