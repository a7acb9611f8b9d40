//! Loading: the tensors that a program names, checked against the spec (rules T1 to T4) before any backend
//! sees them.

use rayon::prelude::*;

pub use crate::reference::bounds::{RowFault, check_row};
use crate::{
    KernelError,
    num::Scale,
    ops::HostWeight,
    program::{Op, Program, Weight},
    reference::linear::GROUP,
    tensor::{DType, HostTensor, TensorId},
};

fn bad(id: TensorId, why: impl Into<String>) -> KernelError {
    KernelError::Spec {
        what: format!("tensor {id}"),
        why: why.into(),
    }
}

/// T1: tensor `id` with exactly this type and shape.
pub fn tensor(
    tensors: &[HostTensor],
    id: TensorId,
    dtype: DType,
    rows: usize,
    cols: usize,
) -> Result<&HostTensor, KernelError> {
    let t = tensors
        .get(id as usize)
        .ok_or_else(|| bad(id, format!("is not there; the pack holds {}", tensors.len())))?;
    if (t.dtype, t.rows, t.cols) != (dtype, rows, cols) {
        let why = format!(
            "is {:?} [{}, {}], the program needs {dtype:?} [{rows}, {cols}]",
            t.dtype, t.rows, t.cols
        );
        return Err(bad(id, why));
    }
    let want = rows
        .checked_mul(cols)
        .and_then(|n| n.checked_mul(dtype.size()))
        .ok_or_else(|| bad(id, "is larger than memory can be"))?;
    if t.data().len() != want {
        return Err(bad(
            id,
            format!("has {} bytes, its shape needs {want}", t.data().len()),
        ));
    }
    Ok(t)
}

/// An `I32 [1, cols]` tensor's values.
pub fn ints(tensors: &[HostTensor], id: TensorId, cols: usize) -> Result<Vec<i32>, KernelError> {
    let t = tensor(tensors, id, DType::I32, 1, cols)?;
    Ok(t.data()
        .as_chunks()
        .0
        .iter()
        .map(|b| i32::from_le_bytes(*b))
        .collect())
}

/// An `I16 [rows, cols]` tensor's values.
pub fn shorts(
    tensors: &[HostTensor],
    id: TensorId,
    rows: usize,
    cols: usize,
) -> Result<Vec<i16>, KernelError> {
    let t = tensor(tensors, id, DType::I16, rows, cols)?;
    Ok(t.data()
        .as_chunks()
        .0
        .iter()
        .map(|b| i16::from_le_bytes(*b))
        .collect())
}

/// T1 to T3: a weight of `n` rows of `k`, its values and row bounds checked.
pub fn weight(tensors: &[HostTensor], w: &Weight, n: usize, k: usize) -> Result<HostWeight, KernelError> {
    let q = tensor(tensors, w.q, DType::I8, n, k)?.clone();
    let scales = tensor(tensors, w.scale, DType::Scale, 1, n)?;
    let mult = w
        .mult
        .map(|id| tensor(tensors, id, DType::U8, n, k / GROUP).cloned())
        .transpose()?;
    let weight = HostWeight {
        n,
        k,
        scales: scales
            .data()
            .as_chunks()
            .0
            .iter()
            .map(|b| Scale::from_bytes(*b))
            .collect(),
        bias: w.bias.map(|id| ints(tensors, id, n)).transpose()?,
        q,
        mult,
    };
    (0..n)
        .into_par_iter()
        .try_for_each(|i| row(&weight, w, i))
        .map(|()| weight)
}

fn row(weight: &HostWeight, ids: &Weight, i: usize) -> Result<(), KernelError> {
    check_row(weight.row(i), weight.mults(i)).map_err(|fault| match fault {
        RowFault::Weight => bad(ids.q, format!("row {i} holds -128; weights lie in +-127")),
        RowFault::Multiplier(m) => {
            let id = ids.mult.unwrap_or_default();
            bad(id, format!("row {i} holds multiplier {m}; they lie in 1..=15"))
        }
        RowFault::Sum(sum) => bad(ids.q, format!("row {i}: sum |w * m| * 128 = {sum} reaches 2^31")),
    })
}

/// A tensor that an op reads, with the type and shape that T1 and T4 ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// The tensor.
    pub id: TensorId,
    /// Its element type.
    pub dtype: DType,
    /// Its rows.
    pub rows: usize,
    /// Elements a row.
    pub cols: usize,
}

/// The tensors that an op of a program reads.
pub fn needs(program: &Program, op: &Op) -> Vec<Need> {
    let need = |id, dtype, rows: u32, cols: u32| Need {
        id,
        dtype,
        rows: rows as usize,
        cols: cols as usize,
    };
    let weight = |w: &Weight, n: u32, k: u32| {
        let groups = u32::try_from(GROUP).map_or(0, |g| k / g);
        let optional = w.mult.map(|id| need(id, DType::U8, n, groups));
        let bias = w.bias.map(|id| need(id, DType::I32, 1, n));
        [need(w.q, DType::I8, n, k), need(w.scale, DType::Scale, 1, n)]
            .into_iter()
            .chain(optional)
            .chain(bias)
            .collect()
    };
    match op {
        Op::Embed { weight: w, .. } => weight(w, program.vocab, program.d_model),
        Op::Linear { weight: w, n, k, .. } => weight(w, *n, *k),
        Op::PosEmbed { weight: w, .. } => weight(w, program.context, program.d_model),
        Op::RmsNorm { gain, group, .. } => vec![need(*gain, DType::I32, 1, *group)],
        Op::LayerNorm {
            gain, bias, group, ..
        } => [gain, bias].map(|id| need(*id, DType::I32, 1, *group)).to_vec(),
        Op::Rope { table, head_dim, .. } => vec![need(*table, DType::I16, program.context, *head_dim)],
        _ => vec![],
    }
}

/// Checks every tensor that the program names, as loading does; importers call it before they write a pack.
pub fn check(program: &Program, tensors: &[HostTensor]) -> Result<(), KernelError> {
    program.validate()?;
    let mut seen: Vec<Weight> = vec![];
    let mut check_weight = |w: &Weight, n: u32, k: u32| {
        if seen.contains(w) {
            return Ok(());
        }
        seen.push(*w);
        weight(tensors, w, n as usize, k as usize).map(|_| ())
    };
    for site in &program.sites {
        for Need {
            id,
            dtype,
            rows,
            cols,
        } in needs(program, &site.op)
        {
            tensor(tensors, id, dtype, rows, cols)?;
        }
        match &site.op {
            Op::Embed { weight, .. } => check_weight(weight, program.vocab, program.d_model)?,
            Op::Linear { weight, n, k, .. } => check_weight(weight, *n, *k)?,
            Op::PosEmbed { weight, .. } => check_weight(weight, program.context, program.d_model)?,
            _ => {}
        }
    }
    Ok(())
}
