//! One linear weight: rows stream in as floats and out as integers, a slab at a time; scales, multipliers
//! and bias follow. Rows are independent, so threads cannot change a bit.

use std::{fs::File, io::BufWriter};

use bitai_kernels::DType;
use rayon::prelude::*;

use super::{
    ImportError,
    fold::Fold,
    gguf::Gguf,
    number::{self, GROUP, Scale},
};
use crate::{
    arch::{F_ACT, LinearPart},
    pack::PackWriter,
};

/// Elements a slab: 16 MiB as f64.
const SLAB: usize = 1 << 21;
/// Elements that one task works on.
const TASK: usize = 1 << 17;

/// A quantised run of rows.
pub(crate) struct Block {
    pub(crate) q: Vec<u8>,
    pub(crate) scales: Vec<Scale>,
    pub(crate) mult: Vec<u8>,
}

/// Writes `<name>.q`, `.scale`, then `.mult` and `.bias` where the plan has them. `source` is the tensor's
/// name in the file, `gain` the norm before it. Gives the row scales.
pub(crate) fn write(
    gguf: &Gguf,
    writer: &mut PackWriter<BufWriter<File>>,
    part: &LinearPart,
    source: &str,
    fold: &Fold,
    gain: Option<&[f64]>,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<Scale>, ImportError> {
    let (n, k) = (part.n as usize, part.k as usize);
    let tensor = gguf.shaped(&format!("{source}.weight"), n, k)?;
    // Rotations of the output side mix rows: only they need the weight whole.
    let whole = if fold.mixes_rows(part.role) {
        let mut w = gguf.rows(&tensor, 0, n)?;
        fold.left(part.role, &mut w, k);
        Some(w)
    } else {
        None
    };
    let task_rows = (TASK / k).max(1);
    let slab_rows = (SLAB / k).max(1).next_multiple_of(task_rows);
    let mut scales = Vec::with_capacity(n);
    let mut mult = Vec::new();
    let mut out = writer.tensor(&format!("{}.q", part.name), DType::I8, n, k)?;
    for first in (0..n).step_by(slab_rows) {
        let end = (first + slab_rows).min(n);
        let starts: Vec<usize> = (first..end).step_by(task_rows).collect();
        let blocks: Vec<Result<Block, ImportError>> = starts
            .par_iter()
            .map(|&at| {
                let rows = task_rows.min(end - at);
                let mut w = match &whole {
                    Some(w) => w[at * k..(at + rows) * k].to_vec(),
                    None => gguf.rows(&tensor, at, rows)?,
                };
                for row in w.chunks_mut(k) {
                    fold.right(part.role, gain, row);
                }
                quantise(&part.name, part.grouped, k, at, &w)
            })
            .collect();
        for block in blocks {
            let block = block?;
            out.write(&block.q)?;
            scales.extend(block.scales);
            mult.extend(block.mult);
        }
        progress((end - first) as u64);
    }
    out.finish()?;
    write_scales(writer, &format!("{}.scale", part.name), &scales)?;
    if part.grouped {
        writer.whole(&format!("{}.mult", part.name), DType::U8, n, k / GROUP, &mult)?;
    }
    if part.bias {
        let t = gguf.shaped(&format!("{source}.bias"), 1, n)?;
        let mut b = gguf.rows(&t, 0, 1)?;
        fold.bias(part.role, &mut b);
        let bytes: Vec<u8> = b
            .iter()
            .flat_map(|b| number::fixed(*b, F_ACT).to_le_bytes())
            .collect();
        writer.whole(&format!("{}.bias", part.name), DType::I32, 1, n, &bytes)?;
    }
    Ok(scales)
}

/// Writes a tensor of row scales.
pub(crate) fn write_scales(
    writer: &mut PackWriter<BufWriter<File>>,
    name: &str,
    scales: &[Scale],
) -> Result<(), ImportError> {
    let bytes: Vec<u8> = scales
        .iter()
        .flat_map(|(m, e)| [m.to_le_bytes(), e.to_le_bytes()])
        .flatten()
        .collect();
    writer.whole(name, DType::Scale, 1, scales.len(), &bytes)?;
    Ok(())
}

/// Rows of `k` elements, the first being row `first` of the tensor `name`, as the spec's integers.
pub(crate) fn quantise(
    name: &str,
    grouped: bool,
    k: usize,
    first: usize,
    w: &[f64],
) -> Result<Block, ImportError> {
    let mut block = Block {
        q: Vec::with_capacity(w.len()),
        scales: Vec::with_capacity(w.len() / k),
        mult: Vec::new(),
    };
    let mut q = vec![0i8; k];
    let mut mult = vec![0u8; k / GROUP];
    for (i, row) in w.chunks(k).enumerate() {
        let scale = if grouped {
            let scale = number::quantise_row_grouped(row, &mut q, &mut mult);
            block.mult.extend(&mult);
            scale
        } else {
            number::quantise_row(row, &mut q)
        };
        let reach = number::row_reach(&q, grouped.then_some(&mult));
        if reach >= 1 << 31 {
            return Err(ImportError::Range {
                name: name.to_owned(),
                row: first + i,
                why: format!("the accumulator could reach {reach}, the spec's bound is 2^31"),
            });
        }
        block.scales.push(scale);
        // Two's complement bytes are the canonical form.
        block.q.extend(q.iter().map(|q| q.cast_unsigned()));
    }
    Ok(block)
}
